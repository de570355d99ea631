//! The whole loop: given a world, act, see what each person saw.

use countersign::sandbox::world::{ANNA, WorldOptions};

use crate::world::{Stage, set_image, text};

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_image_is_pushed_directly_and_becomes_healthy() {
    let mut s = Stage::new(WorldOptions::default()).await;
    let before = s.world.file("apps/checkout/deploy.yaml").unwrap();
    let change = s.propose(set_image("checkout", "reg.example/checkout:1.9.1")).await;
    assert_eq!(s.world.file("apps/checkout/deploy.yaml").unwrap(), before, "nothing is written before a yes");
    s.press(ANNA, "Approve").await;
    let end = s.until(&change, &["healthy"]).await;
    assert_eq!(text(&end, "outcome"), "healthy");
    assert_eq!(s.world.live_image("checkout").as_deref(), Some("reg.example/checkout:1.9.1"));
    assert_eq!(s.world.file("apps/checkout/deploy.yaml").unwrap(), before.replace("checkout:1.9.2", "checkout:1.9.1"));
    assert_eq!(s.our_commits().len(), 1);
    let card = s.world.bot.wait_for(ANNA, crate::world::PATIENCE, |m| m.text.contains("HEALTHY")).await;
    assert!(card.is_some_and(|c| c.buttons.is_empty()), "the card is settled and has no buttons");
    s.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flux_delivers_an_approved_image() {
    let mut s = Stage::new(WorldOptions::default()).await;
    let change = s.propose(set_image("payments", "reg.example/payments:2.1.0")).await;
    s.press(ANNA, "Approve").await;
    s.until(&change, &["healthy"]).await;
    assert_eq!(s.world.live_image("payments").as_deref(), Some("reg.example/payments:2.1.0"));
    s.end().await;
}
