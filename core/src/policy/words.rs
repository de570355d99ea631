//! What a decision is called.

use crate::model::{Decided, Delivery, Level, RiskLevel};

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
            let of = if d.quorum.different_groups { "of different groups: " } else { "" };
            format!("{how}{} of {} ({of}{})", d.quorum.count, d.approvers.join(", "), d.quorum.groups.join(", "))
        }
    }
}

/// Word for a level.
pub fn level_word(l: Level) -> &'static str {
    match l {
        Level::Standard => "standard",
        Level::Prompted => "prompted",
        Level::Manual => "manual",
        Level::Deny => "deny",
    }
}

pub(super) fn risk_word(r: RiskLevel) -> &'static str {
    match r {
        RiskLevel::Low => "low",
        RiskLevel::Medium => "medium",
        RiskLevel::High => "high",
        RiskLevel::Critical => "critical",
    }
}

/// Word for a delivery, as files write it.
pub fn delivery_word(d: Delivery) -> &'static str {
    match d {
        Delivery::Direct => "direct",
        Delivery::MergeAfterApproval => "merge_after_approval",
        Delivery::PullRequest => "pull_request",
    }
}
