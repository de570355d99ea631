//! Freezes: times during which nothing leaves. They add to what the rules say and no level
//! overrides them. Times are wall-clock times of an IANA zone; where a clock change makes one
//! ambiguous, the longer reading counts.

use chrono::{
    DateTime, Datelike as _, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone as _, Timelike as _, Utc,
    Weekday,
};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use super::raw::{RawBetween, RawCron, RawDaily, RawFreeze, RawWeekly};
use super::rule::Match;

const WEEK_MIN: u32 = 7 * 24 * 60;
const DAY_MIN: u32 = 24 * 60;
const MAX_CRON_S: u32 = 31 * 24 * 3600;

/// A freeze.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    /// Name, unique over all files.
    pub id: String,
    /// File that it is in.
    pub file: String,
    /// What it is about.
    pub matches: Match,
    /// Who may let a change through meanwhile: groups, and how many people. Absent = nobody.
    pub approve: Option<(Vec<String>, u32)>,
    /// Why, for people and agents.
    pub reason: Option<String>,
    window: Window,
    zone: Tz,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Window {
    /// Minutes of the week from Monday 00:00; the end may lie before the beginning.
    Weekly { from: u32, to: u32 },
    /// Minutes of the day on these days; an end that is not after the beginning is on the next day.
    Daily { days: Vec<Weekday>, from: u32, to: u32 },
    /// Once.
    Between { from: DateTime<Utc>, to: DateTime<Utc> },
    /// For so many seconds whenever the schedule fires.
    Cron { at: Box<Cron>, text: String, length_s: u32 },
}

impl Freeze {
    /// When the freeze that is on at `now` ends; `None` where none is on.
    pub fn until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = now.with_timezone(&self.zone).naive_local();
        let ends_in = |minutes: u32| {
            let end = local.with_second(0)?.with_nanosecond(0)? + TimeDelta::minutes(i64::from(minutes));
            Some(latest(self.zone, end))
        };
        match &self.window {
            Window::Weekly { from, to } => {
                let length = (to + WEEK_MIN - from) % WEEK_MIN;
                let at = local.weekday().num_days_from_monday() * DAY_MIN + local.hour() * 60 + local.minute();
                let since = (at + WEEK_MIN - from) % WEEK_MIN;
                if since < length { ends_in(length - since) } else { None }
            }
            Window::Daily { days, from, to } => {
                let length = if to > from { to - from } else { to + DAY_MIN - from };
                let at = local.hour() * 60 + local.minute();
                let yesterday = local.weekday().pred();
                [(local.weekday(), at), (yesterday, at + DAY_MIN)].into_iter().find_map(|(day, at)| {
                    let since = at.checked_sub(*from)?;
                    if days.contains(&day) && since < length { ends_in(length - since) } else { None }
                })
            }
            Window::Between { from, to } => (*from <= now && now < *to).then_some(*to),
            Window::Cron { at, length_s, .. } => {
                let length = TimeDelta::seconds(i64::from(*length_s));
                // The last firing within the length before now; the freeze of a later one ends later.
                let mut start = at.find_next_occurrence(&(now - length).with_timezone(&self.zone), false).ok()?;
                if start.with_timezone(&Utc) > now {
                    return None;
                }
                for _ in 0..1000 {
                    match at.find_next_occurrence(&start, false) {
                        Ok(next) if next.with_timezone(&Utc) <= now => start = next,
                        _ => break,
                    }
                }
                Some(start.with_timezone(&Utc) + length)
            }
        }
    }

    /// Whether it can be on at `now` or later.
    pub fn opens_again(&self, now: DateTime<Utc>) -> bool {
        match &self.window {
            // A schedule that never fires was refused when its file was read.
            Window::Weekly { .. } | Window::Daily { .. } | Window::Cron { .. } => true,
            Window::Between { to, .. } => now < *to,
        }
    }

    /// Whether a change that a rule matches may be frozen: no condition that both have excludes it.
    pub(super) fn may_meet(&self, rule: &Match) -> bool {
        let apart = |a: &Option<Vec<String>>, b: &Option<Vec<String>>| match (a, b) {
            (Some(a), Some(b)) => !a.iter().any(|x| b.iter().any(|y| x == y || x.contains('*') || y.contains('*'))),
            _ => false,
        };
        let f = &self.matches;
        let labels = f.labels.iter().any(|(k, v)| rule.labels.get(k).is_some_and(|w| !v.iter().any(|x| w.contains(x))));
        !labels
            && !apart(&f.operation, &rule.operation)
            && !apart(&f.cluster, &rule.cluster)
            && !apart(&f.namespace, &rule.namespace)
            && !apart(&f.kind, &rule.kind)
            && !apart(&f.agent, &rule.agent)
            && !apart(&f.repository, &rule.repository)
    }

    /// When it is on, in words.
    pub fn words(&self) -> String {
        let time = |m: u32| format!("{:02}:{:02}", m / 60, m % 60);
        let day = |m: u32| {
            let names = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
            usize::try_from(m / DAY_MIN).ok().and_then(|i| names.get(i)).copied().unwrap_or("Mon")
        };
        let when = match &self.window {
            Window::Weekly { from, to } => format!(
                "every week from {} {} to {} {}",
                day(*from),
                time(from % DAY_MIN),
                day(*to),
                time(to % DAY_MIN)
            ),
            Window::Daily { days, from, to } => {
                let all = days.len() == 7;
                let days: Vec<String> = days.iter().map(Weekday::to_string).collect();
                let on = if all { "every day".to_owned() } else { format!("on {}", days.join(", ")) };
                format!("{on} from {} to {}", time(*from), time(*to))
            }
            Window::Between { from, to } => {
                let local = |t: &DateTime<Utc>| t.with_timezone(&self.zone).format("%Y-%m-%d %H:%M").to_string();
                format!("from {} to {}", local(from), local(to))
            }
            Window::Cron { text, length_s, .. } => format!("at \"{text}\" for {} min", length_s / 60),
        };
        format!("{when}, {}", self.zone.name())
    }

    /// A moment in the freeze's own zone, for people.
    pub fn local(&self, t: DateTime<Utc>) -> String {
        let local = t.with_timezone(&self.zone);
        format!("{} {}", local.format("%Y-%m-%d %H:%M"), self.zone.name())
    }
}

/// The last moment that a clock of the zone shows this; in a gap, an hour later.
fn latest(zone: Tz, local: NaiveDateTime) -> DateTime<Utc> {
    let there = |t: NaiveDateTime| zone.from_local_datetime(&t).latest().map(|t| t.with_timezone(&Utc));
    there(local).or_else(|| there(local + TimeDelta::hours(1))).unwrap_or_else(|| local.and_utc())
}

fn earliest(zone: Tz, local: NaiveDateTime) -> DateTime<Utc> {
    let there = |t: NaiveDateTime| zone.from_local_datetime(&t).earliest().map(|t| t.with_timezone(&Utc));
    there(local).or_else(|| there(local - TimeDelta::hours(1))).unwrap_or_else(|| local.and_utc())
}

/// A freeze from its form; names and groups are checked by the caller.
pub(super) fn read(file: &str, raw: RawFreeze, matches: Match) -> Result<Freeze, String> {
    let zone: Tz = raw.zone.parse().map_err(|_| {
        format!("\"{}\" is no time zone; write one of the IANA names (Europe/Berlin, UTC)", raw.zone.escape_debug())
    })?;
    let window = match (raw.weekly, raw.daily, raw.between, raw.cron) {
        (Some(w), None, None, None) => weekly(&w)?,
        (None, Some(d), None, None) => daily(d)?,
        (None, None, Some(b), None) => between(&b, zone)?,
        (None, None, None, Some(c)) => cron(c)?,
        _ => return Err("a freeze has exactly one of weekly, daily, between and cron".into()),
    };
    let approve = match raw.approve {
        Some(a) if a.from.is_empty() || a.from.iter().any(|g| g.trim().is_empty()) => {
            return Err("`approve.from` names no group".into());
        }
        Some(a) if a.count == 0 => return Err("`approve.count` must be at least 1".into()),
        Some(a) => Some((a.from, a.count)),
        None => None,
    };
    Ok(Freeze { id: raw.id, file: file.to_owned(), matches, approve, reason: raw.reason, window, zone })
}

fn weekly(w: &RawWeekly) -> Result<Window, String> {
    let moment = |text: &str| -> Result<u32, String> {
        let (day, time) = text
            .trim()
            .split_once(' ')
            .ok_or_else(|| format!("\"{}\" is no day and time; write fri 17:00", text.escape_debug()))?;
        Ok((weekday(day)?.num_days_from_monday() * DAY_MIN + clock(time.trim())?) % WEEK_MIN)
    };
    let (from, to) = (moment(&w.from)?, moment(&w.to)?);
    if from == to {
        return Err("the freeze begins and ends at the same time of the week".into());
    }
    Ok(Window::Weekly { from, to })
}

fn daily(d: RawDaily) -> Result<Window, String> {
    let days: Vec<Weekday> = match d.days {
        Some(days) if days.is_empty() => return Err("`days` is empty, so the freeze would never be on".into()),
        Some(days) => days.iter().map(|d| weekday(d)).collect::<Result<_, _>>()?,
        None => (0..7).filter_map(|n| Weekday::try_from(n).ok()).collect(),
    };
    let (from, to) = (clock(&d.from)?, clock(&d.to)?);
    if from == to || from == DAY_MIN {
        return Err("the freeze begins and ends at the same time of the day; 00:00 to 24:00 is all of it".into());
    }
    Ok(Window::Daily { days, from, to })
}

fn between(b: &RawBetween, zone: Tz) -> Result<Window, String> {
    let moment = |text: &str| {
        let text = text.trim();
        ["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S"]
            .iter()
            .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
            .or_else(|| Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_time(NaiveTime::MIN)))
            .ok_or_else(|| format!("\"{}\" is no date and time; write 2026-12-20T00:00", text.escape_debug()))
    };
    let (from, to) = (moment(&b.from)?, moment(&b.to)?);
    if to <= from {
        return Err("the freeze ends before it begins".into());
    }
    if to.checked_add_days(Days::new(2)).is_none() || from.checked_sub_days(Days::new(2)).is_none() {
        return Err("the freeze is outside of any calendar".into());
    }
    Ok(Window::Between { from: earliest(zone, from), to: latest(zone, to) })
}

fn cron(c: RawCron) -> Result<Window, String> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let at = parser
        .parse(&c.at)
        .map_err(|_| format!("\"{}\" is no schedule; write minute hour day month weekday", c.at.escape_debug()))?;
    if at.find_next_occurrence(&DateTime::<Utc>::UNIX_EPOCH, true).is_err() {
        return Err(format!("the schedule \"{}\" never fires", c.at.escape_debug()));
    }
    let length_s = super::file::seconds(&c.length)?;
    if length_s > MAX_CRON_S {
        return Err("`for` is at most 31d".into());
    }
    Ok(Window::Cron { at: Box::new(at), text: c.at, length_s })
}

fn weekday(text: &str) -> Result<Weekday, String> {
    let short = text.trim().to_ascii_lowercase();
    match short.as_str() {
        "mon" => Ok(Weekday::Mon),
        "tue" => Ok(Weekday::Tue),
        "wed" => Ok(Weekday::Wed),
        "thu" => Ok(Weekday::Thu),
        "fri" => Ok(Weekday::Fri),
        "sat" => Ok(Weekday::Sat),
        "sun" => Ok(Weekday::Sun),
        _ => Err(format!("\"{}\" is no day; there are mon, tue, wed, thu, fri, sat, sun", text.escape_debug())),
    }
}

/// `17:00` in minutes; `24:00` is the end of the day.
fn clock(text: &str) -> Result<u32, String> {
    let bad = || format!("\"{}\" is no time of day; write 17:00", text.escape_debug());
    let (h, m) = text.trim().split_once(':').ok_or_else(bad)?;
    let two = |s: &str| if s.len() == 2 { s.parse::<u32>().ok() } else { None };
    match (two(h), two(m)) {
        (Some(h), Some(m)) if h < 24 && m < 60 => Ok(h * 60 + m),
        (Some(24), Some(0)) => Ok(DAY_MIN),
        _ => Err(bad()),
    }
}
