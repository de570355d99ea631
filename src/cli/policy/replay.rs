//! `policy replay --policy DIR [--state DIR]`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use countersign_core::Result;
use countersign_core::policy::{PolicySet, Replayed, replay};

use crate::clock::rfc3339;
use crate::config::{Config, read_policies};
use crate::journal::read_events;

/// What to decide anew, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder (or file) of the policy to try.
    #[arg(long)]
    policy: PathBuf,
    /// State directory with the journal; without it, the configuration's.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Every change as JSON, those that stay the same too.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Path, args: Args) -> Result<String> {
    let set = PolicySet::parse(&read_policies(&args.policy)?)?;
    let (journal, people) = match (&args.state, Config::load(config)) {
        (Some(state), config) => (state.join("journal.db"), config.ok().map(|c| c.people)),
        (None, config) => {
            let config = config?;
            (crate::app::journal_path(&config), Some(config.people))
        }
    };
    let events = read_events(&journal).await?;
    let rows = replay(&set, people.as_deref(), &events);
    if args.json {
        return Ok(super::pretty(&rows)? + "\n");
    }
    let mut out = table(&rows);
    if people.is_none() {
        out.push_str("People are not known here: every group is taken to be staffed.\n");
    }
    Ok(out)
}

/// What differs, and why; then the figures.
fn table(rows: &[Replayed]) -> String {
    let mut out = String::new();
    let mut unknown = 0;
    let mut differ = 0;
    for r in rows {
        unknown += usize::from(r.would_be.is_none());
        if r.differs.is_empty() {
            continue;
        }
        differ += 1;
        let _ = writeln!(out, "{} {} {}", r.name, rfc3339(r.at), r.what);
        for d in &r.differs {
            let _ = writeln!(out, "  {d}");
        }
        for w in &r.why {
            let _ = writeln!(out, "  - {w}");
        }
    }
    let _ = writeln!(out, "{} changes: {differ} would be decided differently.", rows.len());
    if unknown > 0 {
        let _ = writeln!(
            out,
            "{unknown} cannot be replayed: an older version wrote them, without what they were decided on."
        );
    }
    out.push_str("Changes that were refused are in no journal, so looser files show nothing about them.\n");
    out
}
