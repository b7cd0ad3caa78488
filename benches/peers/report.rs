//! What came out, in Markdown.

use std::fmt::Write;
use std::time::Duration;

use crate::machine::Machine;
use crate::measure::Sample;
use crate::rounds::Outcome;
use crate::tool::Step;

/// From this share of the machine on, what others did is likely to show in the time.
const DISTURBING: f64 = 0.10;

/// The whole report.
pub(crate) fn markdown(machine: &Machine, outcomes: &[Outcome]) -> String {
    let mut page = format!("{}\n", machine.describe());
    for outcome in outcomes {
        let Outcome { title, versions, left_out, .. } = outcome;
        let mut versions = versions.clone();
        versions.dedup();
        let _ = writeln!(page, "\n### {title}\n\nPrograms: {}.", versions.join("; "));
        if !left_out.is_empty() {
            let _ = writeln!(page, "Left out: {}.", left_out.join("; "));
        }
        page += &table(outcome);
        if outcome.names.len() > 1 {
            page += &ratios(outcome);
            page += &incremental(outcome);
        }
    }
    page
}

fn table(outcome: &Outcome) -> String {
    let mut table = String::from(
        "\n| step | program | wall s, median | minimum | CPU s | server's CPU s | peak RSS MB \
         | stored MB | CPU pressure | others | disturbed |\n\
         | --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n",
    );
    for ((step, at), samples) in &outcome.samples {
        let peak = samples.iter().map(|sample| sample.peak_rss).max().unwrap_or(0);
        let stores = matches!(step, Step::First | Step::Unchanged);
        let _ = writeln!(
            table,
            "| {} | {} | {:.2} | {:.2} | {:.2} | {} | {:.0} | {} | {:.0} % | {:.0} % | {} of {} |",
            step.name(),
            outcome.names[*at],
            median(samples, wall),
            minimum(samples, wall),
            median(samples, |sample| sample.cpu.as_secs_f64()),
            figure(median(samples, |sample| sample.server_cpu.as_secs_f64()), 2),
            megabytes(peak),
            if stores { figure(median(samples, |s| megabytes(s.stored)), 1) } else { "".into() },
            100.0 * median(samples, |sample| sample.pressure),
            100.0 * median(samples, |sample| sample.others),
            samples.iter().filter(|sample| sample.others > DISTURBING).count(),
            samples.len(),
        );
    }
    table
}

/// Lifeboat against whichever peer is the best, for each measure on its own.
fn ratios(outcome: &Outcome) -> String {
    let mut table = String::from(
        "\nLifeboat against the best peer (under 1: Lifeboat takes less):\n\n\
         | step | wall, medians | wall, minima | CPU with the server's, medians |\n\
         | --- | --- | --- | --- |\n",
    );
    for step in Step::ALL {
        let Some(own) = outcome.samples.get(&(step, 0)) else { continue };
        let ratio = |figure: &dyn Fn(&[Sample]) -> f64| {
            let peers = outcome.samples.iter().filter(|((of, at), _)| *of == step && *at > 0);
            let figures = peers.map(|((_, at), samples)| (figure(samples), outcome.names[*at]));
            figures.min_by(|one, other| one.0.total_cmp(&other.0)).map(|(best, name)| {
                let own = figure(own);
                format!("**{:.2}** ({own:.2} / {best:.2}, {name})", own / best)
            })
        };
        let cells = [
            ratio(&|samples| median(samples, wall)),
            ratio(&|samples| minimum(samples, wall)),
            ratio(&|samples| median(samples, all_cpu)),
        ];
        let [Some(medians), Some(minima), Some(cpu)] = cells else { continue };
        let _ = writeln!(table, "| {} | {medians} | {minima} | {cpu} |", step.name());
    }
    table
}

/// What a backup costs when nothing has changed, against the first one.
fn incremental(outcome: &Outcome) -> String {
    let seconds = |step| Some(median(outcome.samples.get(&(step, 0))?, wall));
    let (Some(first), Some(unchanged)) = (seconds(Step::First), seconds(Step::Unchanged)) else {
        return String::new();
    };
    let share = 100.0 * unchanged / first;
    format!("\nLifeboat's unchanged backup takes {share:.1} % of the time of its first one.\n")
}

fn wall(sample: &Sample) -> f64 {
    sample.wall.as_secs_f64()
}

fn all_cpu(sample: &Sample) -> f64 {
    (sample.cpu + sample.server_cpu).max(Duration::from_millis(10)).as_secs_f64()
}

/// The middle one; of an even number the lower of the two in the middle.
fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut figures: Vec<f64> = samples.iter().map(of).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

fn minimum(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    samples.iter().map(of).fold(f64::INFINITY, f64::min)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Nothing where there is nothing to say.
fn figure(value: f64, digits: usize) -> String {
    if value == 0.0 { String::new() } else { format!("{value:.digits$}") }
}
