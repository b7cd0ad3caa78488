//! What lies in an archive, before something is read: what it takes is said, and it is done when
//! that was asked for.

use lifeboat_core::ThawTier;
use lifeboat_repository::{PackCount, ThawNeed, ThawOptions, ThawPlan};
use serde::Serialize;

use super::count::Count;
use crate::args::Thawing;
use crate::failure::Failed;
use crate::output::{duration, number, size};
use crate::session::{Opened, Session};

/// The event `thaw`: what of the packs that are needed lies in an archive.
#[derive(Serialize)]
struct Planned<'a> {
    classes: Vec<&'a str>,
    needed: Count,
    thawed: Count,
    thawing: Count,
    archived: Count,
    tiers: Vec<Takes>,
    asked: Option<&'static str>,
}

/// How long a tier takes.
#[derive(Serialize)]
struct Takes {
    tier: &'static str,
    seconds: u64,
}

/// Sees that what is needed can be read.
///
/// Nothing is looked up where data lies in no archive as far as the repository knows, unless a thaw
/// was asked for: rules of a bucket move objects without saying so.
pub(super) async fn see(
    opened: &Opened,
    need: &ThawNeed,
    arguments: &Thawing,
    session: &Session,
) -> Result<(), Failed> {
    let repository = &opened.repository;
    if repository.data_class().is_none() && arguments.thaw.is_none() {
        return Ok(());
    }
    let planning = Box::pin(repository.thaw_plan(need, &session.context));
    let plan = session.unless_cancelled(planning).await?;
    let plan = plan.map_err(|error| opened.failed(error))?;
    if plan.needed.packs == 0 {
        return Ok(());
    }
    session.output.finish();
    tell(&plan, arguments, session);
    if plan.is_ready() {
        return Ok(());
    }
    let Some(tier) = arguments.thaw else {
        return Err(opened.failed(plan.refusal()));
    };
    let mut options = ThawOptions::default();
    (options.tier, options.days) = (tier.into(), arguments.thaw_days);
    (options.wait, options.poll) = (arguments.thaw_wait, arguments.thaw_poll);
    let thawing = Box::pin(repository.thaw(&plan, &options, &session.context));
    let thawed = session.unless_cancelled(thawing).await?;
    thawed.map_err(|error| opened.failed(error))
}

fn tell(plan: &ThawPlan, arguments: &Thawing, session: &Session) {
    let tiers = plan.tiers();
    let takes = |tier: &ThawTier| plan.takes(*tier).unwrap_or_default();
    session.output.event(
        "thaw",
        &Planned {
            classes: plan.classes.iter().map(|class| class.name.as_str()).collect(),
            needed: plan.needed.into(),
            thawed: plan.thawed.into(),
            thawing: plan.thawing.into(),
            archived: plan.archived.into(),
            tiers: tiers
                .iter()
                .map(|tier| Takes { tier: tier.as_str(), seconds: takes(tier).as_secs() })
                .collect(),
            asked: arguments.thaw.map(|tier| ThawTier::from(tier).as_str()),
        },
    );
    let packs = |count: PackCount| {
        format!("{} ({})", number(count.packs, "pack", "packs"), size(count.bytes))
    };
    let classes: Vec<_> = plan.classes.iter().map(|class| class.name.as_str()).collect();
    session.output.say(&format!(
        "{} of what is needed lie in an archive ({}): {} are not thawed, {} are being thawed, {} \
         can be read",
        packs(plan.needed),
        classes.join(", "),
        packs(plan.archived),
        packs(plan.thawing),
        packs(plan.thawed)
    ));
    if !plan.is_ready() {
        let each: Vec<_> =
            tiers.iter().map(|tier| format!("{tier} up to {}", duration(takes(tier)))).collect();
        session.output.say(&format!("a thaw takes, as the provider says: {}", each.join(", ")));
    }
}
