# One line per recipe. `just` itself: `pip install rust-just`.

# Everything that needs only Rust, a C compiler and git.
test:
    cargo test --workspace

# The whole story on a sandbox.
demo *ARGS:
    cargo run -- demo {{ARGS}}

# Judge recordings of engines: prints each change of verdict as a JSON line.
replay *FILES:
    @cargo run --quiet -- replay {{FILES}}

# The MCP conformance suite (npm) against the real router, both protocol revisions.
conformance:
    tests/conformance/run.sh

# Clients that nobody here wrote: Python mcp SDK, kubectl, aiogram, octokit.
clients:
    tests/clients/run.sh

# AgentAck (PyPI) over traces of random histories: nine rules, each of which must fail without its control.
# The last line is `rules=9 passed=9 histories=N`.
ack *ARGS:
    tests/ack/run.sh "${COUNTERSIGN_CI_CACHE:-target/ack}" {{ARGS}}

# The properties at the threat model's full counts (10,000 lying reasons, 50,000 diffs, 100,000 presses, 1,000,000
# forged handles, 100 doubles of 1,000 changes), in release; `cargo test` runs them with smaller ones.
full-counts:
    cargo test --release --package countersign-core --lib message::tests::properties -- --ignored
    cargo test --release --package countersign --lib pipeline::press::tests -- --ignored

# SIGKILL at every fault point. The last line is `points=N kills=N lost=0 doubled=0 stuck=0`.
kill *ARGS:
    cargo build --quiet && cargo run --quiet --example kill -- {{ARGS}}

# Lint the chart and render deploy/kubernetes from it, with the real helm.
manifests *ARGS:
    deploy/render.sh {{ARGS}}

# Ratios against named alternatives.
bench *ARGS:
    cargo bench --quiet --bench bench -- {{ARGS}}

# Folder of the lab's programs, and of the lab that runs.
lab_cache := env("COUNTERSIGN_LAB_CACHE", "target/lab/cache")
lab_dir := env("COUNTERSIGN_LAB_DIR", "target/lab/run")

# Builds the real components of the lab from their Go modules; once, about 20 minutes on two cores.
lab-build:
    tests/lab/build.sh {{lab_cache}}

# The real Kubernetes, Argo CD, Flux and Gitea as processes on loopback, with a shop and Countersign in front of it.
lab-up *ARGS: lab-build
    cargo build --quiet
    cargo run --quiet --example lab -- --dir {{lab_dir}} up --cache {{lab_cache}} {{ARGS}}

# Ends the lab; its logs stay.
lab-down:
    @cargo run --quiet --example lab -- --dir {{lab_dir}} down

# What of the lab runs.
lab-status:
    @cargo run --quiet --example lab -- --dir {{lab_dir}} status

# In the lab: `call TOOL JSON`, `chat`, `press BUTTON`, `restart COMPONENT`, `accounts`.
lab *ARGS:
    @cargo run --quiet --example lab -- --dir {{lab_dir}} {{ARGS}}

# The scenarios of both back ends on the real components. Filters as for `cargo test`. With COUNTERSIGN_LAB_KUBECONFIG: on that cluster (docs/lab.md).
lab-test *FILTERS:
    #!/usr/bin/env bash
    set -euo pipefail
    filters="{{FILTERS}}"
    [ -z "${COUNTERSIGN_LAB_KUBECONFIG:-}" ] || exec tests/lab/guest.sh {{lab_cache}} $filters
    {{just_executable()}} lab-up --bare
    # A scenario that waits for its turn holds a thread.
    RUST_TEST_THREADS="${RUST_TEST_THREADS:-32}" COUNTERSIGN_LAB={{lab_dir}}/lab.json COUNTERSIGN_LAB_CACHE={{lab_cache}} PATH="{{lab_cache}}/bin:$PATH" \
        cargo test --test all -- ${filters:-both:: components::} --include-ignored

# Records a scene of the running lab, in the format that `just replay` reads; without a name, lists the scenes.
record *SCENE:
    @cargo run --quiet --example lab -- --dir {{lab_dir}} record {{SCENE}}

# Format, lints, tests.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --workspace
