//! Figures in Prometheus's text format, in a file that a collector reads (the textfile collector of
//! node_exporter does): <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Write as _;
use std::path::Path;

/// Figures of one run.
#[derive(Debug, Default)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// Begins a figure that may rise and fall. Its samples follow.
    pub(crate) fn gauge(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    /// A value of the figure that was begun last.
    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let label = |(name, value): &(&str, &str)| format!("{name}=\"{}\"", escaped(value));
        let labels: Vec<_> = labels.iter().map(label).collect();
        let _ = writeln!(self.0, "{name}{{{}}} {value}", labels.join(","));
    }

    /// Puts them in the place of the file: who reads it meanwhile has the old ones, or these.
    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        // Collectors read files whose names end otherwise.
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let written = std::fs::write(&name, &self.0).and_then(|()| std::fs::rename(&name, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&name);
        }
        written
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_as_the_format_wants_it() {
        let mut metrics = Metrics::default();
        metrics.gauge("lag_seconds", "How far behind");
        metrics.sample("lag_seconds", &[("replica", "a\"b\\c\nd"), ("address", "::1")], 1.5);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lifeboat.prom");
        std::fs::write(&path, "old").unwrap();
        metrics.write(&path).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "# HELP lag_seconds How far behind\n# TYPE lag_seconds gauge\n\
             lag_seconds{replica=\"a\\\"b\\\\c\\nd\",address=\"::1\"} 1.5\n"
        );
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
