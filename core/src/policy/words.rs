//! What a decision is called.

use crate::model::{Decided, Delivery, Level};

/// Who is asked, in words, for cards and answers.
pub fn asks(d: &Decided) -> String {
    match d.level {
        Level::Deny => "nobody: policy refuses it".to_owned(),
        Level::Manual => "nobody: a person commits the patch".to_owned(),
        Level::Standard if d.tell.is_empty() => "nobody".to_owned(),
        Level::Standard => format!("nobody; {} will be told", d.tell.join(", ")),
        Level::Prompted => {
            let how = match d.delivery {
                Delivery::PullRequest => "by merging the pull request, ",
                Delivery::Direct | Delivery::MergeAfterApproval => "",
            };
            format!("{how}{} of {} ({})", d.quorum.count, d.approvers.join(", "), d.quorum.groups.join(", "))
        }
    }
}
