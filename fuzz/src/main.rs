//! Fuzz targets for every decoder: no input makes one panic, take more memory than its bound, or
//! take its time.
//!
//! ```text
//! cargo xtask fuzz                          each target for ten seconds
//! cargo xtask fuzz --seconds 3600 entry     one target for an hour
//! cargo xtask fuzz --seed 7 entry           the run of another seed
//! ```
//!
//! Inputs are valid objects and what is kept in `fuzz/corpus/`, changed at random. What a decoder
//! says of an input serves as a map of where it has been: an input that gives a new answer is
//! changed further. Coverage would see more, and takes a nightly compiler. An input that breaks a
//! rule is kept in the corpus, where every later run tries it first.

mod corpus;
mod memory;
mod minimise;
mod mutate;
mod target;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Parser;

use minimise::minimise;
use mutate::{Random, mutate};
use target::Target;

/// No input is worth more time, even on a busy machine.
const SLOWEST: Duration = Duration::from_secs(10);
/// Larger inputs are not kept.
const LARGEST: usize = 4096;
/// No more are kept for one target.
const MOST_KEPT: usize = 32;
/// So many inputs that gave new answers are changed further.
const LIVELY: usize = 512;

#[derive(Parser)]
#[command(about = "Fuzz every decoder")]
struct Arguments {
    /// Only the targets of these names
    targets: Vec<String>,
    /// How long each target is tried
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Which run; the same one gives the same inputs, as far as it comes in its time
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Make the corpus anew: an input of every answer, as small as it can be
    #[arg(long)]
    keep: bool,
}

/// What became of a target.
struct Report {
    name: &'static str,
    inputs: u64,
    taken: u64,
    answers: usize,
    peak: usize,
    slowest: Duration,
    broken: Option<String>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut targets = target::all();
    for name in &arguments.targets {
        if !targets.iter().any(|target| target.name == name) {
            let known: Vec<_> = targets.iter().map(|target| target.name).collect();
            bail!("there is no target \"{name}\"; there are {}", known.join(", "));
        }
    }
    targets.retain(|target| {
        arguments.targets.is_empty() || arguments.targets.iter().any(|name| name == target.name)
    });
    println!(
        "seed {}, {} seconds for each of {} targets",
        arguments.seed,
        arguments.seconds,
        targets.len()
    );
    // A panic is told with its input, once; the default would tell it in the midst of others.
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let broken = std::thread::scope(|scope| {
        let work = || {
            let mut broken = 0;
            while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                let report = fuzz(target, &arguments);
                broken += tell(report);
            }
            broken
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().map(|handle| handle.join().unwrap_or(1)).sum::<usize>()
    });
    println!("{} targets, {broken} broken", targets.len());
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(report: Result<Report>) -> usize {
    match report {
        Ok(report) => {
            println!(
                "{:<16} {:>9} inputs, {:>8} taken, {:>3} answers, peak {:>6} KiB, slowest {:>6.1?}{}",
                report.name,
                report.inputs,
                report.taken,
                report.answers,
                report.peak >> 10,
                report.slowest,
                report.broken.as_ref().map_or_else(String::new, |why| format!("\n  BROKEN: {why}")),
            );
            usize::from(report.broken.is_some())
        }
        Err(error) => {
            println!("BROKEN: {error:#}");
            1
        }
    }
}

fn fuzz(target: &Target, arguments: &Arguments) -> Result<Report> {
    let kept = corpus::read(target.name)?;
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let mut report = Report {
        name: target.name,
        inputs: 0,
        taken: 0,
        answers: 0,
        peak: 0,
        slowest: Duration::ZERO,
        broken: None,
    };
    // Of each answer the smallest input so far.
    let mut answers = HashMap::new();
    let mut lively: Vec<Vec<u8>> = Vec::new();
    let first = target.seeds.iter().chain(kept.iter().map(|(_, bytes)| bytes));
    for input in first {
        // Those of the start are always worth changing.
        try_one(target, input, &mut report, &mut answers, arguments.seed)?;
        lively.push(input.clone());
        if report.broken.is_some() {
            return Ok(report);
        }
    }
    if report.taken == 0 {
        report.broken = Some("it takes none of its seeds: they are out of date".to_owned());
        return Ok(report);
    }
    let always = lively.len();
    let mut random = Random::new(arguments.seed ^ name_number(target.name));
    while Instant::now() < end && report.broken.is_none() {
        let mut input = lively[random.below(lively.len())].clone();
        let other = &lively[random.below(lively.len())];
        mutate(&mut input, other, &mut random);
        let news = try_one(target, &input, &mut report, &mut answers, arguments.seed)?;
        if news {
            if lively.len() < always + LIVELY {
                lively.push(input);
            } else {
                let at = always + random.below(LIVELY);
                lively[at] = input;
            }
        }
    }
    report.answers = answers.len();
    if arguments.keep && report.broken.is_none() {
        keep(target, &answers, &kept)?;
    }
    Ok(report)
}

/// Puts one input of every kind of answer into the corpus, in place of what was there.
fn keep(
    target: &Target,
    answers: &HashMap<String, Vec<u8>>,
    before: &[(String, Vec<u8>)],
) -> Result<()> {
    for (name, _) in before.iter().filter(|(name, _)| !name.starts_with("broken-")) {
        corpus::remove(target.name, name)?;
    }
    let mut answers: Vec<_> = answers.iter().collect();
    answers.sort_by_key(|(answer, input)| (input.len(), *answer));
    // What begins with the same words differs in a detail: that is not worth a file.
    let mut classes = HashSet::new();
    answers.retain(|(answer, _)| classes.insert(answer.split(' ').take(6).collect::<Vec<_>>()));
    for (answer, input) in answers.into_iter().take(MOST_KEPT) {
        let same = |bytes: &[u8]| {
            let outcome = catch_unwind(AssertUnwindSafe(|| target.run(bytes)));
            outcome.is_ok_and(|outcome| told(&outcome, bytes) == *answer)
        };
        let small = minimise(input, same);
        if small.len() <= LARGEST {
            let name = format!("{:016x}", name_number(&hex::encode(&small)));
            corpus::write(target.name, &name, &small)?;
        }
    }
    Ok(())
}

fn name_number(name: &str) -> u64 {
    name.bytes().fold(1, |number: u64, byte| number.wrapping_mul(31).wrapping_add(byte.into()))
}

/// Runs one input, and says whether the answer is a new one.
fn try_one(
    target: &Target,
    input: &[u8],
    report: &mut Report,
    answers: &mut HashMap<String, Vec<u8>>,
    seed: u64,
) -> Result<bool> {
    let start = Instant::now();
    let (outcome, peak) = memory::measured(|| catch_unwind(AssertUnwindSafe(|| target.run(input))));
    let time = start.elapsed();
    report.inputs += 1;
    report.peak = report.peak.max(peak);
    report.slowest = report.slowest.max(time);
    let broken = match &outcome {
        Err(panic) => Some(format!("it panics: {}", words(panic.as_ref()))),
        Ok(_) if peak > target.bound(input) => {
            Some(format!("it takes {peak} bytes where {} are its bound", target.bound(input)))
        }
        Ok(_) if time > SLOWEST => Some(format!("it takes {time:.1?}")),
        Ok(_) => None,
    };
    if let Some(why) = broken {
        let name = format!("broken-{:016x}", name_number(&hex::encode(input)));
        let path = corpus::write(target.name, &name, input)?;
        report.broken = Some(format!("{why}; seed {seed}, input {}", path.display()));
        return Ok(false);
    }
    let Ok(outcome) = outcome else { return Ok(false) };
    report.taken += u64::from(outcome.is_ok());
    let known = answers.get_mut(&told(&outcome, input));
    let news = known.is_none();
    match known {
        Some(smallest) if input.len() < smallest.len() => *smallest = input.to_vec(),
        Some(_) => {}
        None => drop(answers.insert(told(&outcome, input), input.to_vec())),
    }
    Ok(news)
}

/// What the decoder says, as far as it tells one kind of input from another.
fn told(outcome: &Result<(), String>, input: &[u8]) -> String {
    match outcome {
        // Long and short ones are told apart roughly.
        Ok(()) => format!("taken {}", input.len().checked_ilog2().unwrap_or(0)),
        Err(why) => without_numbers(why),
    }
}

/// An answer without what differs from input to input: numbers and names.
fn without_numbers(why: &str) -> String {
    let is_name =
        |word: &&str| word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = why.split(' ').filter(|word| !is_name(word));
    let plain = words.map(|word| word.trim_matches(|char: char| char.is_ascii_digit()));
    plain.take(30).collect::<Vec<_>>().join(" ")
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
