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
