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

# SIGKILL at every fault point. The last line is `points=N kills=N lost=0 doubled=0 stuck=0`.
kill *ARGS:
    cargo build --quiet && cargo run --quiet --example kill -- {{ARGS}}

# Lint the chart and render deploy/kubernetes from it, with the real helm.
manifests *ARGS:
    deploy/render.sh {{ARGS}}

# Ratios against named alternatives.
bench *ARGS:
    cargo run --release --quiet --example bench -- {{ARGS}}

# Format, lints, tests.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --workspace
