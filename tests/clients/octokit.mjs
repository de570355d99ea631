// @octokit/rest (npm) works on a forge, and each of its answers is validated against GitHub's own OpenAPI
// description (npm @octokit/openapi, ajv@8, ajv-formats). Arguments: base address of the forge, token of a bot,
// token of a person, owner, repository, a branch that is ahead of `main`; and, if there is one, the number of a merged
// pull request of Countersign with the id of its change. Prints one line of JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

// Packages are looked for where the script is started, not where it lies.
const require = createRequire(join(process.cwd(), "package.json"));
const { Octokit } = await import(require.resolve("@octokit/rest"));
const Ajv = require("ajv").default ?? require("ajv");
const addFormats = require("ajv-formats").default ?? require("ajv-formats");
const description = JSON.parse(readFileSync(require.resolve("@octokit/openapi/generated/api.github.com.json")));

const [baseUrl, botToken, personToken, owner, repo, head, number, change] = process.argv.slice(2);

// OpenAPI 3.0 says `nullable`, JSON Schema says `type: [..., "null"]`.
function toJsonSchema(node) {
  if (Array.isArray(node)) return node.map(toJsonSchema);
  if (node === null || typeof node !== "object") return node;
  const out = {};
  for (const [key, value] of Object.entries(node)) {
    if (["example", "examples", "nullable", "discriminator", "xml", "externalDocs"].includes(key)) continue;
    out[key] = toJsonSchema(value);
  }
  if (node.nullable === true) {
    const { ...inner } = out;
    return { anyOf: [{ type: "null" }, inner] };
  }
  return out;
}

const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: true });
addFormats(ajv);
ajv.addFormat("repo.nwo", true);
ajv.addFormat("timestamp", true);
ajv.addSchema({ $id: "github", components: { schemas: toJsonSchema(description.components.schemas) } });

const wrong = [];
let checked = 0;

function resolved(node) {
  return node?.$ref ? node.$ref.slice(2).split("/").reduce((at, key) => at[key], description) : node;
}

function absolute(node) {
  return JSON.parse(JSON.stringify(toJsonSchema(node)).replaceAll('"#/components/', '"github#/components/'));
}

function validate(what, schema, value) {
  checked += 1;
  const check = ajv.compile(absolute(schema));
  if (!check(value)) wrong.push({ what, errors: check.errors.slice(0, 5).map((e) => `${e.instancePath} ${e.message}`) });
}

// Octokit tells the route template of each call, which is the key of the description's paths.
function watch(octokit) {
  octokit.hook.wrap("request", async (request, options) => {
    const path = options.url.replace(baseUrl, "");
    const operation = description.paths[path]?.[options.method.toLowerCase()];
    if (!operation) throw new Error(`not in GitHub's description: ${options.method} ${path}`);
    const body = operation.requestBody?.content?.["application/json"]?.schema;
    if (body) {
      const known = Object.keys(resolved(body).properties ?? {});
      const sent = Object.fromEntries(Object.entries(options).filter(([key]) => known.includes(key)));
      validate(`request of ${options.method} ${path}`, body, sent);
    }
    const answered = (status, data) => {
      const response = resolved(operation.responses[String(status)]);
      if (!response) return wrong.push({ what: `${options.method} ${path}`, errors: [`status ${status} is not described`] });
      const schema = response.content?.["application/json"]?.schema;
      if (schema) validate(`answer ${status} of ${options.method} ${path}`, schema, data);
    };
    try {
      const response = await request(options);
      answered(response.status, response.data);
      return response;
    } catch (error) {
      if (error.response) answered(error.status, error.response.data);
      throw error;
    }
  });
  return octokit;
}

// A validator that accepts everything would be worse than none.
function mustRefuse(value) {
  const schema = description.paths["/repos/{owner}/{repo}/pulls/{pull_number}"].get.responses["200"].content["application/json"].schema;
  for (const field of ["head", "user", "mergeable", "_links"]) {
    const { [field]: gone, ...rest } = value;
    if (ajv.compile(absolute(schema))(rest)) throw new Error(`a pull request without ${field} passes: the check is blind`);
  }
}

const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const bot = watch(new Octokit({ baseUrl, auth: botToken, log: quiet }));
const person = watch(new Octokit({ baseUrl, auth: personToken, log: quiet }));
const at = { owner, repo };

async function refused(promise, status) {
  try {
    await promise;
  } catch (error) {
    if (error.status === status) return;
    throw error;
  }
  throw new Error(`not refused with ${status}`);
}

if (number) {
  const ours = { ...at, pull_number: Number(number) };
  const { data: pull } = await person.pulls.get(ours);
  const { data: commits } = await person.pulls.listCommits(ours);
  await person.pulls.listReviews(ours);
  await person.issues.listComments({ ...at, issue_number: Number(number) });
  const { data: landed } = await person.repos.getCommit({ ...at, ref: pull.merge_commit_sha });
  const trailer = `Countersign-Change: ${change}`;
  if (!pull.merged || pull.state !== "closed" || pull.user.type !== "Bot") throw new Error(`not merged by Countersign: ${pull.state}`);
  if (commits.length !== 1 || !commits[0].commit.message.includes(trailer)) throw new Error("the branch has not the one commit");
  if (!landed.commit.message.includes(trailer)) throw new Error("the landed commit has no trailer");
}
await bot.users.getAuthenticated();
await bot.repos.get(at);
await bot.repos.listBranches(at);
await bot.repos.getBranch({ ...at, branch: "main" });
await bot.git.getRef({ ...at, ref: "heads/main" });
await bot.git.listMatchingRefs({ ...at, ref: "heads/" });
await bot.repos.getCommit({ ...at, ref: "main" });
await refused(bot.pulls.create({ ...at, title: "t", head: "nowhere", base: "main" }), 422);
const { data: opened } = await bot.pulls.create({ ...at, title: "Scale web", head, base: "main", body: "because" });
const pull = { ...at, pull_number: opened.number };
await refused(bot.pulls.create({ ...at, title: "again", head, base: "main" }), 422);
const { data: found } = await bot.pulls.list({ ...at, head: `${owner}:${head}`, state: "open" });
if (found.length !== 1) throw new Error("the pull request is not found by its head");
mustRefuse((await bot.pulls.get(pull)).data);
await bot.pulls.update({ ...pull, title: "Scale web to two" });
await bot.pulls.listCommits(pull);
await bot.issues.get({ ...at, issue_number: opened.number });
await bot.issues.createComment({ ...at, issue_number: opened.number, body: "hello" });
await bot.issues.listComments({ ...at, issue_number: opened.number });
await person.pulls.createReview({ ...pull, event: "APPROVE", body: "fine" });
await bot.pulls.listReviews(pull);
await refused(bot.pulls.get({ ...at, pull_number: 9999 }), 404);
await refused(bot.pulls.checkIfMerged(pull), 404);
await refused(bot.pulls.merge({ ...pull, sha: opened.base.sha }), 409);
await bot.pulls.update({ ...pull, state: "closed" });
await bot.pulls.update({ ...pull, state: "open" });
const { data: merged } = await person.pulls.merge({ ...pull, sha: opened.head.sha, merge_method: "squash" });
await bot.pulls.checkIfMerged(pull);
const { data: after } = await bot.pulls.get(pull);
if (!after.merged || after.merge_commit_sha !== merged.sha || after.merged_by.type !== "User") throw new Error("not merged by the person");
await refused(bot.pulls.merge(pull), 405);
await bot.git.deleteRef({ ...at, ref: `heads/${head}` });
await refused(bot.git.deleteRef({ ...at, ref: `heads/${head}` }), 422);

console.log(JSON.stringify({ octokit: wrong.length ? "invalid" : "ok", checked, wrong }));
process.exit(wrong.length ? 1 : 0);
