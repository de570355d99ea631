//! Facts about what an agent reads.

use countersign_core::model::{ChangeLine, FieldChange, StoryLine};

use super::*;

fn bytes(result: &CallToolResult) -> usize {
    serde_json::to_vec(result).unwrap().len()
}

#[test]
fn a_small_answer_is_not_touched() {
    let mut answer = ChangeAnswer::new(Outcome::Waiting, "cs-7F3K waits.");
    answer.diff = Some("-a\n+b\n".into());
    let structured = Answer::change(answer.clone()).render().structured_content.unwrap();
    assert_eq!(structured, serde_json::to_value(answer).unwrap());
}

#[test]
fn a_huge_change_answer_fits_8_kb_and_says_what_was_cut() {
    let mut answer = ChangeAnswer::new(Outcome::Waiting, "Waits for approval.".repeat(50));
    answer.diff = Some("+\t\"quoted\" line\n".repeat(5000));
    answer.story =
        (0..400).map(|n| StoryLine { at: "2026-01-01T00:00:00Z".into(), what: format!("step {n}") }).collect();
    answer.fields = (0..300)
        .map(|n| FieldChange {
            object: "Deployment shop/x".into(),
            pointer: format!("/spec/{n}"),
            before: None,
            after: Some(json!("y".repeat(50))),
        })
        .collect();
    answer.notes = vec!["n".repeat(3000); 40];
    let result = Answer::change(answer).render();
    assert!(bytes(&result) <= 8 * 1024, "{}", bytes(&result));
    let structured = result.structured_content.unwrap();
    assert!(structured["diff"].as_str().unwrap().starts_with("+\t\"quoted\" line\n"));
    let last_note = structured["notes"].as_array().unwrap().last().unwrap().as_str().unwrap().to_owned();
    assert!(last_note.starts_with("Shortened to fit: the diff ("), "{last_note}");
    let story = structured["story"].as_array().unwrap();
    assert_eq!(story.last().unwrap()["what"], "step 399", "the newest lines stay");
    serde_json::from_value::<ChangeAnswer>(structured).unwrap();
}

#[test]
fn only_a_diff_that_is_too_long_is_cut() {
    let mut answer = ChangeAnswer::new(Outcome::Waiting, "Waits.");
    answer.diff = Some("+ a line of the diff\n".repeat(1000));
    answer.story = (0..10).map(|n| StoryLine { at: "t".into(), what: format!("step {n}") }).collect();
    let structured = Answer::change(answer).render().structured_content.unwrap();
    assert_eq!(structured["story"].as_array().unwrap().len(), 10);
    assert!(structured["diff"].as_str().unwrap().len() > 5000, "no more is cut than has to be");
}

#[test]
fn a_long_listing_is_read_to_its_end_without_loss_or_repeats() {
    let all: Vec<String> = (0..700).map(|n| format!("shop/Deployment/app-{n}: healthy and a few more words")).collect();
    let (mut cursor, mut seen, mut calls) = (None, Vec::new(), 0);
    loop {
        calls += 1;
        let page = Page::take(&mut cursor).unwrap();
        assert_eq!(cursor, None, "the service never sees the part that is ours");
        let mut answer = InspectAnswer::new(Outcome::Found, "700 objects.");
        answer.items.clone_from(&all);
        let result = Answer::Inspect(Box::new(answer), page).render();
        assert!(bytes(&result) <= 8 * 1024);
        let structured = result.structured_content.unwrap();
        seen.extend(structured["items"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()));
        cursor = structured.get("cursor").and_then(|c| c.as_str()).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, all);
    assert!(calls < 12, "{calls} calls");
}

#[test]
fn the_cursor_of_the_service_survives_ours() {
    let mut cursor = Some("page~2".to_owned());
    let page = Page::take(&mut cursor).unwrap();
    assert_eq!(cursor.as_deref(), Some("page"));
    let lines = (0..300)
        .map(|n| ChangeLine {
            change: format!("{n:026}"),
            name: "cs-1".into(),
            state: "healthy".into(),
            what: "w".repeat(60),
            since: "t".into(),
        })
        .collect();
    let answer = ChangesAnswer {
        outcome: Outcome::Found,
        summary: "s".into(),
        changes: lines,
        cursor: Some("next".into()),
        problem: None,
        next: None,
    };
    let structured = Answer::Changes(Box::new(answer), page).render().structured_content.unwrap();
    let shown = structured["changes"].as_array().unwrap();
    assert_eq!(shown[0]["change"], format!("{:026}", 2));
    assert_eq!(structured["cursor"], format!("page~{}", 2 + shown.len()));
}

#[test]
fn a_foreign_cursor_is_refused() {
    assert_eq!(Page::take(&mut Some("x~y".into())).unwrap_err().code, "input.cursor");
}

#[test]
fn a_problem_is_an_error_result_of_the_tools_own_shape() {
    let problem = Problem::new("git.lease_lost", "The branch moved.", "Plan again.").with("main is at 1a2b").later();
    let result = refusal("changes", &problem);
    assert_eq!(result.is_error, Some(true));
    let structured = result.structured_content.unwrap();
    assert_eq!(
        structured["problem"],
        json!({"code": "git.lease_lost", "message": "The branch moved.", "next": "Plan again.", "retry": "later", "evidence": ["main is at 1a2b"]})
    );
    serde_json::from_value::<ChangesAnswer>(structured).unwrap();
    let text = result.content[0].as_text().unwrap().text.clone();
    assert_eq!(text, "git.lease_lost: The branch moved. Plan again.\n- main is at 1a2b");
}

#[test]
fn the_text_is_a_summary_and_not_the_json() {
    let mut answer = ChangeAnswer::new(Outcome::Waiting, "cs-7F3K: image of checkout to v2.");
    answer.waits_for = Some("one of alice, bob".into());
    answer.diff = Some("-v1\n+v2\n".into());
    answer.next = Some(Next {
        tool: "change".into(),
        args: json!({"change": "cs-7F3K", "wait_s": 45}),
        after_s: 5,
        say: "Asked.".into(),
    });
    let result = Answer::change(answer).render();
    let text = result.content[0].as_text().unwrap().text.clone();
    assert_eq!(
        text,
        "cs-7F3K: image of checkout to v2.\nWaits for: one of alice, bob\nNext: change {\"change\":\"cs-7F3K\",\"wait_s\":45} in 5 s\nTell: Asked."
    );
}

#[test]
fn clipping_keeps_characters_whole() {
    assert_eq!(super::clip("äöü", 6), "äöü");
    assert_eq!(super::clip("äöüä", 7), "äö…");
}
