//! The answer to `/start` and `/help`.

use super::{EntityKind, Text, escape_name};

/// Who a writer is here. A stranger learns nothing but the number that a Person needs.
pub fn greeting(id: i64, person: Option<&str>) -> Text {
    let mut t = Text::default();
    t.push("Your numeric Telegram id is ").styled(EntityKind::Code, &id.to_string()).push(".\n");
    if let Some(person) = person {
        t.line(&format!("You are on the list, as {}.", escape_name(person)));
        t.line("Cards come by themselves when a rule names you; their buttons are the decision.");
        t.line("/pending lists what waits for you. /stop holds everything back until two people say /resume.");
        t.line("/help says this again.");
    }
    t.trimmed()
}

/// The answer to a pairing code. Until the configuration says so, it is a proposal.
pub fn pairing(id: i64, person: &str) -> Text {
    let mut t = Text::default();
    t.push("Your account, number ").styled(EntityKind::Code, &id.to_string()).push(", asks to be ");
    t.push(&escape_name(person)).push(" here.\n");
    t.line("Tell whoever gave you the code that number: they compare it before it counts.");
    t.line("Nothing can be decided from here until then.");
    t.trimmed()
}

/// A person's Telegram account is another one now. Goes to everyone who decides, so that nobody takes a place unseen.
pub fn account_changed(person: &str, before: Option<i64>, now: Option<i64>) -> Text {
    let mut t = Text::default();
    t.push(&escape_name(person));
    match now {
        Some(id) => t.push(" decides by the Telegram account ").styled(EntityKind::Code, &id.to_string()).push(" now"),
        None => t.push(" decides by no Telegram account now"),
    };
    match before {
        Some(id) => t.push(" (before: ").styled(EntityKind::Code, &id.to_string()).push(").\n"),
        None => t.push(" (before: none).\n"),
    };
    t.line("The configuration says so. If you did not expect it: /stop, and look who changed it.");
    t.trimmed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pairing_says_that_it_does_not_count_yet() {
        let t = pairing(1002, "anna");
        assert!(t.text.contains("1002, asks to be anna here."), "{}", t.text);
        assert!(t.text.contains("Nothing can be decided from here until then."));
    }

    #[test]
    fn a_changed_account_names_both_numbers() {
        assert!(
            account_changed("anna", None, Some(7))
                .text
                .starts_with("anna decides by the Telegram account 7 now (before: none).")
        );
        assert!(
            account_changed("anna", Some(7), None)
                .text
                .starts_with("anna decides by no Telegram account now (before: 7).")
        );
    }
}
