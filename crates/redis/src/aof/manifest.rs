//! The manifest of append-only files.

/// A manifest has no more bytes than this: a few lines.
pub(super) const MOST: u64 = 1 << 20;

/// What a manifest names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) base: Option<String>,
    /// In the order in which they were written.
    pub(super) increments: Vec<String>,
}

impl Manifest {
    /// Reads the lines `file NAME seq NUMBER type b|h|i`; says what is wrong with one.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut manifest = Self::default();
        let mut increments = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let bad = || format!("its line \"{}\" makes no sense", line.escape_default());
            let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
            let (mut name, mut number, mut kind) = (None, None, None);
            for pair in words.chunks(2) {
                match pair {
                    ["file", value] => name = Some(*value),
                    ["seq", value] => number = value.parse::<u64>().ok(),
                    ["type", value] => kind = Some(*value),
                    // A later version may say more.
                    [_, _] => {}
                    _ => return Err(bad()),
                }
            }
            let (Some(name), Some(number), Some(kind)) = (name, number, kind) else {
                return Err(bad());
            };
            // As the server does: a name, and no path. One in quotes has odd characters.
            if name.contains('/') || name.starts_with(['.', '"']) {
                return Err(format!("it names a file \"{}\"", name.escape_default()));
            }
            match kind {
                "b" if manifest.base.is_none() => manifest.base = Some(name.to_owned()),
                "i" => increments.push((number, name.to_owned())),
                // What is to be removed.
                "h" => {}
                _ => return Err(bad()),
            }
        }
        if !increments.is_sorted_by(|one, other| one.0 < other.0) {
            return Err("its increments are not in order".to_owned());
        }
        manifest.increments = increments.into_iter().map(|(_, name)| name).collect();
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_base_and_increments() {
        let text = "file a.aof.2.base.rdb seq 2 type b\nfile a.aof.1.incr.aof seq 1 type h\n\
                    file a.aof.3.incr.aof seq 3 type i\nfile a.aof.4.incr.aof seq 4 type i\n";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.base.as_deref(), Some("a.aof.2.base.rdb"));
        assert_eq!(manifest.increments, ["a.aof.3.incr.aof", "a.aof.4.incr.aof"]);
        assert_eq!(Manifest::parse("# nothing\n").unwrap(), Manifest::default());
        // As later versions write it.
        let more = "file a seq 1 type i startoffset 12 endoffset 40\n";
        assert_eq!(Manifest::parse(more).unwrap().increments, ["a"]);
        for bad in [
            "file a seq 1\n",
            "file ../a seq 1 type b\n",
            "file a seq x type b\n",
            "file a seq 1 type b\nfile b seq 1 type b\n",
            "file a seq 2 type i\nfile b seq 1 type i\n",
            "nonsense\n",
            "file a seq 1 type q\n",
        ] {
            assert!(Manifest::parse(bad).is_err(), "{bad}");
        }
    }
}
