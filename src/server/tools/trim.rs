//! Keeps answers small: what may be cut, in which order, and never silently.

use serde_json::Value;

/// At most `max` bytes of `text`, cut at a character, with an ellipsis that shows the cut.
pub fn clip(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// Bytes of the JSON text of `value`.
fn size(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Writing a `Value` to a counter cannot fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// Lists that may lose entries, with how many always stay and which end goes; least useful first.
const LISTS: [(&str, usize, End); 6] = [
    ("story", 4, End::Oldest),
    ("events", 4, End::Last),
    ("fields", 8, End::Last),
    ("files", 8, End::Last),
    ("via", 8, End::Last),
    ("claims", 4, End::Last),
];

#[derive(Clone, Copy, PartialEq)]
enum End {
    Oldest,
    Last,
}

/// Makes `answer` at most `max` bytes and says what was cut. `listing` names the list that pages (cut after
/// everything else, from its end, and not among the cuts reported: its cursor tells).
pub fn shrink(answer: &mut Value, max: usize, listing: Option<&str>) -> Vec<String> {
    let mut cuts = Vec::new();
    // Room for the note about the cuts.
    let goal = max.saturating_sub(240);
    if size(answer) <= max {
        return cuts;
    }
    cut_diff(answer, goal, &mut cuts);
    for (key, keep, end) in LISTS {
        cut_list(answer, key, keep, end, goal, &mut cuts);
    }
    if size(answer) > goal && answer.as_object_mut().is_some_and(|m| m.remove("object").is_some()) {
        cuts.push("the object".into());
    }
    if let Some(key) = listing {
        pop_until(answer, key, 1, End::Last, goal);
    }
    // Nothing that is left should be long; whatever is, is cut harder and harder.
    for (string, items) in [(1000, 20), (400, 8), (160, 4), (80, 2)] {
        if size(answer) <= goal {
            return cuts;
        }
        cut_everywhere(answer, string, items);
        cuts.push(format!("texts over {string} bytes"));
    }
    cuts
}

fn cut_diff(answer: &mut Value, goal: usize, cuts: &mut Vec<String>) {
    let over = size(answer).saturating_sub(goal);
    let Some(Value::String(diff)) = answer.get_mut("diff") else { return };
    if over == 0 {
        return;
    }
    let lines = diff.lines().count();
    // JSON escapes make a diff longer on the wire than in memory: scale the cut.
    let wire = serde_json::to_string(diff).map_or(diff.len(), |s| s.len()).max(1);
    let keep = diff.len().saturating_sub(over * diff.len() / wire + 64).max(1024.min(diff.len()));
    let mut kept = String::new();
    for line in diff.lines() {
        if kept.len() + line.len() + 1 > keep {
            break;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    let shown = kept.lines().count();
    *diff = kept;
    cuts.push(format!("the diff ({shown} of {lines} lines)"));
}

fn cut_list(answer: &mut Value, key: &str, keep: usize, end: End, goal: usize, cuts: &mut Vec<String>) {
    let before = answer.get(key).and_then(Value::as_array).map_or(0, Vec::len);
    let after = pop_until(answer, key, keep, end, goal);
    if after < before {
        cuts.push(format!("{key} ({after} of {before})"));
    }
}

/// Removes entries of the list until the answer fits or `keep` are left; returns how many are left.
fn pop_until(answer: &mut Value, key: &str, keep: usize, end: End, goal: usize) -> usize {
    let mut over = size(answer).saturating_sub(goal);
    let Some(Value::Array(list)) = answer.get_mut(key) else { return 0 };
    while over > 0 && list.len() > keep {
        let gone = if end == End::Last { list.pop() } else { Some(list.remove(0)) };
        over = over.saturating_sub(gone.map_or(0, |v| size(&v) + 1));
    }
    list.len()
}

fn cut_everywhere(value: &mut Value, string: usize, items: usize) {
    match value {
        Value::String(text) => *text = clip(text, string),
        Value::Array(list) => {
            list.truncate(items);
            list.iter_mut().for_each(|v| cut_everywhere(v, string, items));
        }
        // The next call and the choices are ready to send: cutting inside would make them wrong.
        Value::Object(map) => {
            for (key, v) in map.iter_mut() {
                if key != "args" {
                    cut_everywhere(v, string, items);
                }
            }
        }
        _ => {}
    }
}
