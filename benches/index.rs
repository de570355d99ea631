//! The ownership index at a million objects, against a map with whole keys.
//!
//! Each is built in a process of its own, so that the growth of its resident memory is its own.

use std::collections::HashMap;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use countersign_core::model::{Engine, ObjectKey, OwnerRef};
use countersign_core::ownership::{Index, Listing};
use serde_json::{Value, json};

use crate::Size;
use crate::report::{Goal, Line, Report, Unit, median};
use crate::tools::rss_of;

/// Objects of one Application.
const EACH: usize = 100;
/// Look-ups that are timed.
const LOOKUPS: usize = 20_000;

fn owner(app: usize) -> OwnerRef {
    OwnerRef::new(Engine::Argocd, "Application", "argocd", &format!("app-{app}"))
}

fn key(app: usize, object: usize) -> ObjectKey {
    let (group, kind) = match object % 3 {
        0 => ("apps", "Deployment"),
        1 => ("", "Service"),
        _ => ("", "ConfigMap"),
    };
    ObjectKey::new(group, kind, &format!("team-{app}"), &format!("checkout-service-{object}"))
}

/// What the parent reads: bytes by the process's growth, by the index's own count, and time of one look-up.
pub fn child(which: &str, size: Size) -> Result<()> {
    let before = rss_of(std::process::id())?;
    let (mut nanos, counted, found);
    if which == "ours" {
        let mut index = Index::new();
        for a in 0..size.index_apps {
            let objects = (0..EACH).map(|o| key(a, o)).collect();
            index.apply(Listing { owner: owner(a), objects: Some(objects), remote: None, plane: None });
        }
        (nanos, found) = lookups(size, |k, wanted| index.listing(k).first().is_some_and(|o| o.name == *wanted));
        counted = index.heap_bytes() / index.len().max(1);
        report(&mut nanos, before, size, counted, found)?;
        drop(index);
    } else {
        let mut map: HashMap<ObjectKey, Vec<Arc<OwnerRef>>> = HashMap::new();
        for a in 0..size.index_apps {
            let owner = Arc::new(owner(a));
            for o in 0..EACH {
                map.entry(key(a, o)).or_default().push(Arc::clone(&owner));
            }
        }
        (nanos, found) =
            lookups(size, |k, wanted| map.get(k).and_then(|o| o.first()).is_some_and(|o| o.name == *wanted));
        report(&mut nanos, before, size, 0, found)?;
        drop(map);
    }
    Ok(())
}

fn lookups(size: Size, mut get: impl FnMut(&ObjectKey, &String) -> bool) -> (Vec<f64>, usize) {
    let mut nanos = Vec::with_capacity(LOOKUPS);
    let mut found = 0;
    for i in 0..LOOKUPS {
        // A stride that is prime to the number of Applications: no two look-ups are neighbours.
        let app = i * 7919 % size.index_apps;
        let (k, wanted) = (key(app, i % EACH), format!("app-{app}"));
        let started = Instant::now();
        let right = black_box(get(black_box(&k), &wanted));
        nanos.push(started.elapsed().as_secs_f64() * 1e9);
        found += usize::from(right);
    }
    (nanos, found)
}

fn report(nanos: &mut [f64], before: f64, size: Size, counted: usize, found: usize) -> Result<()> {
    ensure!(found == LOOKUPS, "only {found} of {LOOKUPS} look-ups found the owner");
    let grown = (rss_of(std::process::id())? - before) * 1024.0 * 1024.0;
    let objects = f64::from(u32::try_from(size.index_apps * EACH)?);
    nanos.sort_by(f64::total_cmp);
    // Beyond that it is the scheduler that is measured.
    let slow = nanos.get(LOOKUPS * 99 / 100).copied().unwrap_or(f64::NAN);
    println!("{}", json!({"median_ns": median(nanos), "slow_ns": slow, "rss": grown / objects, "counted": counted}));
    Ok(())
}

fn spawn(which: &str, size: Size) -> Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    if size.quick {
        command.arg("--quick");
    }
    let out = command.args(["--index-child", which]).output()?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(serde_json::from_slice(&out.stdout)?)
}

/// Both, and their lines.
pub fn measure(size: Size, report: &mut Report) -> Result<()> {
    report.note(&format!("index: {} Applications with {EACH} objects each", size.index_apps));
    let (ours, other) = (spawn("ours", size)?, spawn("map", size)?);
    let get = |v: &Value, k: &str| v.get(k).and_then(Value::as_f64).context("no figure");
    let name = "HashMap with whole keys";
    let what = format!("index of {} objects", size.index_apps * EACH);
    let time = |v: &Value, k: &str| get(v, k).map(|ns| ns / 1e6);
    report.line(Line {
        name: format!("{what}, look-up"),
        unit: Unit::Ms,
        ours: time(&ours, "median_ns")?,
        other: Ok((name.into(), time(&other, "median_ns")?)),
        goal: Goal::AtMost(1.0),
    });
    report.line(Line {
        name: format!("{what}, 99th percentile of look-ups"),
        unit: Unit::Ms,
        ours: time(&ours, "slow_ns")?,
        other: Ok((name.into(), time(&other, "slow_ns")?)),
        goal: Goal::AtMost(1.0),
    });
    // The larger of what it counts itself and what the process grew by.
    report.line(Line {
        name: format!("{what}, memory of one"),
        unit: Unit::Bytes,
        ours: get(&ours, "rss")?.max(get(&ours, "counted")?),
        other: Ok((name.into(), get(&other, "rss")?)),
        goal: Goal::AtMost(200.0),
    });
    Ok(())
}
