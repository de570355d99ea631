//! The channel and everyone who is to decide through it.

use countersign_core::Problem;

use super::{Check, Looks};
use crate::channel::telegram::Telegram;
use crate::config::Config;

pub async fn examine(config: &Config) -> Vec<Check> {
    let mut looks = Looks::at("people");
    let telegram = channel(config, &mut looks).await;
    for p in &config.people {
        if let (Some(telegram), Some(id)) = (&telegram, p.spec.telegram) {
            match telegram.try_chat(id).await {
                Ok(()) => looks.ok(format!("{} can be reached in Telegram", p.name)),
                Err(problem) => looks.bad(Problem { message: format!("{}: {}", p.name, problem.message), ..problem }),
            }
        }
        let ways = usize::from(telegram.is_some() && p.spec.telegram.is_some())
            + usize::from(!p.spec.ssh_keys.is_empty())
            + usize::from(p.spec.forge.is_some());
        let decides = !p.spec.groups.is_empty();
        if ways == 0 && decides {
            looks.soft(Problem::new(
                "people.no_way",
                format!("{} is in a group and has no way to decide: no Telegram, no SSH key, no forge login.", p.name),
                "Pair Telegram with `countersign people pair NAME`, or add `ssh_keys` or `forge`.",
            ));
        } else if decides && telegram.is_some() && p.spec.telegram.is_none() {
            looks.ok(format!("{0} gets no cards: `countersign people pair {0}` pairs Telegram", p.name));
        }
    }
    for agent in &config.agents {
        let sponsor = &agent.spec.sponsor;
        if agent.spec.token_sha256.is_none() && config.bootstrap.stdio_agent.as_deref() != Some(agent.name.as_str()) {
            looks.ok(format!("agent {} has no token: over stdio only, with --agent (sponsor {sponsor})", agent.name));
        } else {
            looks.ok(format!("agent {} can connect (sponsor {sponsor})", agent.name));
        }
    }
    looks.checks
}

async fn channel(config: &Config, looks: &mut Looks) -> Option<Telegram> {
    let Some(channel) = config.telegram() else {
        looks.ok("no Channel: people decide on the command line or on the forge");
        return None;
    };
    let token = config.secret("Telegram", &channel.spec.token);
    let made = token.and_then(|t| Telegram::new(&t, channel.spec.api_url.as_deref()));
    let telegram = match made {
        Ok(telegram) => telegram,
        Err(problem) => {
            looks.bad(problem);
            return None;
        }
    };
    match telegram.check().await {
        Ok(bot) => {
            looks.ok(format!("the bot is @{} and has no webhook", bot.username));
            Some(telegram)
        }
        Err(problem) => {
            looks.bad(problem);
            None
        }
    }
}
