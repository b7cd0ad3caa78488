//! The end of a restore: what recovery needs is held together, and the cluster gets its `pg_control`.

use lifeboat_core::{Attributes, Completion, EntryPath, Receipt, Result, names};

use super::Archiving;
use super::former::{FORMER_WAL, Former};
use super::goes::not_restorable;
use super::writing::{Restore, marker};
use crate::archive::TimelineHistory;
use crate::control::Control;
use crate::lsn::Lsn;
use crate::recovery::{AUTO_CONF, Signal, rewrite};
use crate::source::{Label, facts};

impl Restore {
    /// Holds what recovery needs against each other; returns what `pg_control` shall be. Blocks.
    fn check(&self, completion: &Completion) -> Result<Control> {
        let state = self.state.lock();
        let missing = |what: &str| not_restorable(format!("it has no {what}"));
        if !state.version {
            return Err(missing("PG_VERSION"));
        }
        let label = state.label.as_deref().ok_or_else(|| missing("backup_label"))?;
        let label = std::str::from_utf8(label)
            .map_err(|error| error.to_string())
            .and_then(Label::parse)
            .map_err(not_restorable)?;
        let control = state.control.clone().ok_or_else(|| missing("pg_control"))?;
        let control = Control::parse(control)
            .map_err(|why| not_restorable(format!("its pg_control is not valid: {why}")))?;
        let stop: Option<Lsn> = completion.position.parse().ok();
        // Without a word about the end, at least the beginning must be there.
        let end = stop.unwrap_or(Lsn(label.checkpoint.0 + 1));
        let size = control.segment_size;
        for segment in size.holding(label.start)..=size.ending_at(end) {
            let name = size.name(label.timeline, segment);
            match state.wal.get(name.as_bytes()) {
                Some(length) if *length == size.bytes() => {}
                Some(length) => {
                    let why =
                        format!("its WAL segment {name} has {length} bytes, not {}", size.bytes());
                    return Err(not_restorable(why));
                }
                None => return Err(missing(&format!("WAL segment {name}"))),
            }
        }
        let map = state.tablespace_map.as_deref().unwrap_or_default();
        for line in map.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let oid = line.split(|byte| *byte == b' ').next().unwrap_or_default();
            if !self.tablespaces.has(oid) {
                return Err(missing(&format!("tablespace {}", oid.escape_ascii())));
            }
        }
        Ok(control)
    }

    /// Makes all of it durable, and then gives `pg_control` its name. Blocks.
    pub(super) fn finish(&self, completion: &Completion) -> Result<Receipt> {
        let control = self.check(completion)?;
        let (top, label, wal, configured) = {
            let state = self.state.lock();
            let names: Vec<Vec<u8>> = state.wal.keys().cloned().collect();
            (state.top.clone(), state.label.clone().unwrap_or_default(), names, state.configured)
        };
        let owner = self.owners.of(&top);
        // As files of the server's own: its account, and nobody else.
        let own = match owner {
            Some((uid, gid)) => Attributes::new().with(names::UID, uid).with(names::GID, gid),
            None => Attributes::new(),
        };
        self.root.create_dir_all(&EntryPath::new("pg_wal")?, 0o700)?;
        self.write_whole(&EntryPath::new("backup_label")?, &label, &own)?;
        if let Some((uid, gid)) = owner {
            for name in &wal {
                self.root.set_owner(&EntryPath::new("pg_wal")?.join(name)?, uid, gid)?;
            }
            self.root.set_top_owner(uid, gid)?;
        }
        self.configure(&wal, &own)?;
        // The server refuses any other mode.
        let mode = if self.mode(&top, 0o700) == 0o750 { 0o750 } else { 0o700 };
        self.root.set_top_mode(mode)?;

        let prepared = EntryPath::new("global/pg_control.lifeboat")?;
        self.write_whole(&prepared, &control.for_restore(), &own)?;
        for (_, root) in self.tablespaces.apart() {
            Former::discard(&root)?;
            Former::forget(&root)?;
            root.sync_file_system()?;
        }
        Former::discard(&self.root)?;
        self.root.sync_file_system()?;

        let control_path = EntryPath::new("global/pg_control")?;
        let global = EntryPath::new("global")?;
        let visible = self.root.rename(&prepared, &control_path).and_then(|()| {
            self.root.sync_dir(Some(&global))?;
            self.root.remove(&marker()?)?;
            self.root.sync_dir(None)
        });
        if let Err(error) = visible {
            // What is not known to be durable must not start.
            let _ = self.root.remove(&control_path);
            return Err(error);
        }
        Former::forget(&self.root)?;
        Ok(self.receipt(completion, owner, configured))
    }

    /// Tells the server about its recovery, and of WAL that it need not be archived: it came from
    /// there. Blocks.
    fn configure(&self, wal: &[Vec<u8>], own: &Attributes) -> Result<()> {
        let recovery = &self.recovery;
        self.write_whole(&EntryPath::new(recovery.signal.file())?, &[], own)?;
        let mut archived = wal.to_vec();
        // A standby follows another server's timelines, and begins none.
        let known = self.histories.iter().filter(|_| recovery.signal == Signal::Recovery);
        for (number, history) in known {
            let name = TimelineHistory::name_of(*number).into_bytes();
            if !wal.contains(&name) {
                self.write_whole(&EntryPath::new("pg_wal")?.join(&name)?, history, own)?;
                archived.push(name);
            }
        }
        let done = EntryPath::new("pg_wal/archive_status")?;
        self.root.create_dir_all(&done, 0o700)?;
        if let (Some(uid), Some(gid)) = (own.unsigned(names::UID), own.unsigned(names::GID)) {
            let id = |id: u64| u32::try_from(id).unwrap_or(u32::MAX);
            self.root.set_owner(&done, id(uid), id(gid))?;
        }
        for name in &archived {
            let mark = [name.as_slice(), b".done"].concat();
            self.write_whole(&done.join(&mark)?, &[], own)?;
        }
        let mut settings = recovery.lines.clone();
        if self.archiving == Archiving::Off {
            settings.push(("archive_mode".to_owned(), "off".to_owned()));
        }
        let path = EntryPath::new(AUTO_CONF)?;
        let mut former = Vec::new();
        match self.root.open_file(&path) {
            Ok(file) => {
                let read = std::io::Read::read_to_end(&mut &file, &mut former);
                read.map_err(|error| {
                    lifeboat_core::local::failed("read", &self.root.show(&path), error)
                })?;
                self.root.remove(&path)?;
            }
            Err(error) if error.kind() == lifeboat_core::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.write_whole(&path, &rewrite(&former, &settings), own)
    }

    fn receipt(
        &self,
        completion: &Completion,
        owner: Option<(u32, u32)>,
        configured: bool,
    ) -> Receipt {
        let directory = self.root.path().display().to_string();
        let version = completion.facts.text(facts::VERSION).unwrap_or_default();
        let major = version.split(['.', ' ']).next().unwrap_or_default();
        let account = owner.and_then(|(uid, _)| self.owners.account_name(uid));
        let as_whom = account.map(|name| format!(", as the account {name}")).unwrap_or_default();
        let mut facts = Attributes::new()
            .with(facts::DIRECTORY, directory.as_str())
            .with(
                "postgres.next",
                format!("start it with PostgreSQL {major}{as_whom}: pg_ctl -D '{directory}' start"),
            )
            .with(
                "postgres.note.unlogged",
                "unlogged tables come back empty, and replication slots do not come back",
            );
        if !configured {
            facts.set(
                "postgres.note.configuration",
                "postgresql.conf was not in the data directory: give it with -c config_file=…",
            );
        }
        facts.set("postgres.note.recovery", self.recovery.told.as_str());
        if self.archiving == Archiving::Kept
            && completion.facts.text(facts::ARCHIVE_MODE).is_some_and(|mode| mode != "off")
        {
            facts.set(
                "postgres.note.archiving",
                "archive_mode is not off: it archives the WAL of its new timeline beside the original's; for a copy that shall not, start it with -c archive_mode=off",
            );
        }
        if self.former.is_some() {
            let kept = self.state.lock().kept;
            facts.set("postgres.kept", kept);
            let mib = kept >> 20;
            let text = format!(
                "{mib} MiB of files were in the directory already, and were left as they are"
            );
            facts.set("postgres.note.delta", text);
            facts.set(
                "postgres.note.former_wal",
                format!(
                    "the WAL that was there lies in {FORMER_WAL}, with what no archive may have: remove it when it is not needed"
                ),
            );
        }
        for (oid, root) in self.tablespaces.apart() {
            let name = format!("postgres.tablespace.{}", oid.escape_ascii());
            facts.set(name, root.path().display().to_string());
        }
        Receipt { snapshot: None, facts }
    }
}
