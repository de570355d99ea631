//! Positions in text: lines, columns, line ends.

/// First byte of the line that holds `at`; a byte-order mark does not count as part of it.
pub(super) fn line_start(src: &str, at: usize) -> usize {
    let head = src.get(..at).unwrap_or(src);
    let start = head.rfind('\n').map_or(0, |i| i + 1);
    if start == 0 && src.starts_with('\u{feff}') && at >= 3 { 3 } else { start }
}

/// Byte after the line's break, or the end of the text.
pub(super) fn line_end(src: &str, at: usize) -> usize {
    src.get(at..).and_then(|t| t.find('\n')).map_or(src.len(), |i| at + i + 1)
}

/// The rest of the line from `at`, without its break.
pub(super) fn rest_of_line(src: &str, at: usize) -> &str {
    src.get(at..line_end(src, at)).unwrap_or("").trim_end_matches(['\n', '\r'])
}

/// Bytes from the line's start to `at`.
pub(super) fn column(src: &str, at: usize) -> usize {
    at - line_start(src, at)
}

/// Whether there is nothing but spaces between the line's start and `at`.
pub(super) fn first_on_line(src: &str, at: usize) -> bool {
    src.get(line_start(src, at)..at).is_some_and(|t| t.bytes().all(|b| b == b' '))
}

/// Whether `t` is empty, blank or a comment.
pub(super) fn blank_or_comment(t: &str) -> bool {
    let t2 = t.trim_start_matches([' ', '\t']);
    t2.is_empty() || (t2.starts_with('#') && (t2.len() < t.len()))
}

/// The line break that the text uses.
pub(super) fn newline(src: &str) -> &'static str {
    match src.find('\n') {
        Some(i) if i > 0 && src.as_bytes().get(i - 1) == Some(&b'\r') => "\r\n",
        _ => "\n",
    }
}

/// 1-based line of `at`.
pub(super) fn line_of(src: &str, at: usize) -> usize {
    src.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1
}

/// Names from `all` that look like `wanted`, nearest first, at most three.
pub(super) fn nearest<'a>(wanted: &str, all: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut scored: Vec<(f32, &str)> = all
        .into_iter()
        .map(|n| (similar::TextDiff::from_chars(wanted.to_lowercase().as_str(), n.to_lowercase().as_str()).ratio(), n))
        .filter(|(r, _)| *r > 0.5)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().take(3).map(|(_, n)| n.to_owned()).collect()
}
