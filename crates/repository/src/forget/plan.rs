//! What is to be forgotten, and why.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lifeboat_core::{
    Decision, Group, GroupBy, JournalNeed, Reason, RetentionPolicy, RuleKind, SnapshotId,
    SnapshotInfo, StoreRef, Timestamp, Verdict, group,
};

use crate::error::{Error, Result};
use crate::pins::all_known;
use crate::repository::SnapshotList;

/// How a plan is made.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ForgetOptions {
    /// What tells the groups apart that a policy judges, beside the store.
    pub group_by: Vec<GroupBy>,
    /// Only snapshots of these stores are judged by a policy; of all, when there are none.
    pub stores: Vec<StoreRef>,
    /// The stores that may lose their last snapshot, each said by its name.
    pub may_lose_all: Vec<StoreRef>,
}

/// What was decided of one group.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlannedGroup {
    /// The group, with its snapshots.
    pub group: Group,
    /// The decisions, the newest snapshot first.
    pub decisions: Vec<Decision>,
    /// From where on the store's journal must stay. `None`: all of it.
    pub journal: Option<JournalNeed>,
}

impl PlannedGroup {
    /// Each snapshot with what was decided of it, the newest first.
    pub fn rows(&self) -> impl Iterator<Item = (&SnapshotInfo, &Decision)> {
        let infos: HashMap<_, _> =
            self.group.snapshots.iter().map(|info| (info.id, info)).collect();
        self.decisions
            .iter()
            .filter_map(move |decision| infos.get(&decision.snapshot).map(|info| (*info, decision)))
    }
}

/// What is to be forgotten, and why.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ForgetPlan {
    /// The groups, in the order of their names.
    pub groups: Vec<PlannedGroup>,
    /// The objects that should be snapshots and cannot be read: nobody knows of which store.
    pub(super) unreadable: Vec<String>,
    /// Those of a store that will stay; a store that may lose all of them is not here.
    pub(super) staying: BTreeMap<StoreRef, BTreeSet<SnapshotId>>,
}

impl ForgetPlan {
    /// What `policy` says of the snapshots in `list`, as of `now`.
    ///
    /// # Errors
    /// When a pin cannot be read, or a store would lose its last snapshot.
    pub fn of_policy(
        list: &SnapshotList,
        policy: &dyn RetentionPolicy,
        options: &ForgetOptions,
        now: Timestamp,
    ) -> Result<Self> {
        all_known(&list.damaged_pins)?;
        let wanted = |info: &&SnapshotInfo| {
            options.stores.is_empty() || options.stores.contains(&info.store)
        };
        let snapshots = list.snapshots.iter().filter(wanted).cloned();
        let judge = |group: Group| PlannedGroup {
            decisions: policy.decide(&group.snapshots, now),
            journal: policy.journal_need(&group.snapshots, now),
            group,
        };
        let groups = group(snapshots, &options.group_by).into_iter().map(judge).collect();
        Self::new(list, groups, options, now)
    }

    /// The snapshots that somebody named.
    ///
    /// # Errors
    /// When one of them is not in `list`, or a live pin holds it; when a pin cannot be read, or a
    /// store would lose its last snapshot.
    pub fn of_snapshots(
        list: &SnapshotList,
        named: &[SnapshotId],
        options: &ForgetOptions,
        now: Timestamp,
    ) -> Result<Self> {
        all_known(&list.damaged_pins)?;
        let mut snapshots = BTreeMap::new();
        for id in named {
            let found = list.snapshots.iter().find(|info| info.id == *id);
            let found = found.ok_or_else(|| Error::NoSuchSnapshot { name: id.to_string() })?;
            snapshots.insert(*id, found.clone());
        }
        let plan = |mut group: Group| {
            group.snapshots.sort_by_key(|info| std::cmp::Reverse((info.taken, info.id)));
            let decide = |info: &SnapshotInfo| Decision {
                snapshot: info.id,
                verdict: Verdict::Remove,
                reasons: vec![Reason::new(RuleKind::Named, "named to be forgotten")],
            };
            let decisions = group.snapshots.iter().map(decide).collect();
            PlannedGroup { decisions, journal: None, group }
        };
        let groups = group(snapshots.into_values(), &[]).into_iter().map(plan).collect();
        Self::new(list, groups, options, now)
    }

    /// Checks what no policy and no person may override.
    fn new(
        list: &SnapshotList,
        groups: Vec<PlannedGroup>,
        options: &ForgetOptions,
        now: Timestamp,
    ) -> Result<Self> {
        let unreadable = list.damaged.iter().map(|(object, _)| object.clone()).collect();
        let mut plan = Self { groups, unreadable, staying: BTreeMap::new() };
        let removed: BTreeSet<_> = plan.removals().iter().map(|info| info.id).collect();
        for info in &list.snapshots {
            let stays = plan.staying.entry(info.store.clone()).or_default();
            if !removed.contains(&info.id) {
                stays.insert(info.id);
            } else if let Some(pin) = info.pins.iter().find(|pin| pin.is_live(now)) {
                return Err(Error::Pinned {
                    snapshot: info.id.to_string(),
                    pin: pin.id.to_string(),
                    why: pin.to_string(),
                });
            }
        }
        plan.staying.retain(|store, _| !options.may_lose_all.contains(store));
        match plan.staying.iter().find(|(_, stays)| stays.is_empty()) {
            Some((store, _)) => Err(Error::LastSnapshot { store: store.clone() }),
            None => Ok(plan),
        }
    }

    /// What is to be forgotten, the oldest first.
    pub fn removals(&self) -> Vec<&SnapshotInfo> {
        let rows = self.groups.iter().flat_map(PlannedGroup::rows);
        let removed = rows.filter(|(_, decision)| decision.verdict == Verdict::Remove);
        let mut removed: Vec<_> = removed.map(|(info, _)| info).collect();
        removed.sort_by_key(|info| (info.taken, info.id));
        removed
    }
}
