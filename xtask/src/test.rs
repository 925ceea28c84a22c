//! `cargo xtask test`: runs the suites and sums them up.
//!
//! Nothing is skipped in silence: a suite that could not run, hung, died or came after the deadline is a failure with
//! its name, and what a default run leaves out is listed. The last line is always `N passed, N failed`.

mod chart;
mod closing;
mod inside;
mod outcome;
mod packages;
mod suites;
mod unit;

use std::error::Error;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use self::inside::{Inside, Wish};
use self::outcome::Outcome;
use self::suites::{Place, SUITES, Suite};
use crate::cache::Cache;
use crate::{docs, stream, sys};

/// What to test and how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Print the suites and end.
    #[arg(long)]
    list: bool,
    /// Run this suite only; may be given several times.
    #[arg(long, value_name = "NAME")]
    suite: Vec<String>,
    /// Run the long suites whole.
    #[arg(long)]
    full: bool,
    /// Report what has not run after so many minutes as failed.
    #[arg(long, value_name = "N")]
    deadline_minutes: Option<u64>,
    /// Use this running node as it is, instead of a fresh one that is thrown away afterwards.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Run the tests whose name has this in it; only with one suite of the node.
    #[arg(requires = "suite")]
    filter: Option<String>,
}

/// Runs what is asked for; the exit code is 1 if anything failed.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    if options.list {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = chosen(options)?;
    sys::note_interrupts()?;
    let cache = Cache::from_env()?;
    let began = Instant::now();
    // Without a deadline of the whole run, the budgets of the suites bound it.
    let deadline = options.deadline_minutes.map(|minutes| began + Duration::from_secs(60 * minutes));
    let wants_node = chosen.iter().any(|suite| matches!(suite.place, Place::Node(_) | Place::Cluster));
    let mut inside = Inside::new(&cache, options.node.as_deref());
    let mut outcomes: Vec<(&str, Outcome)> = Vec::new();
    for suite in &chosen {
        if suite.only_full && !options.full && options.suite.is_empty() {
            let mut outcome = Outcome::default();
            outcome.left_out.push("all of it".into());
            outcomes.push((suite.name, outcome));
            continue;
        }
        let start = Instant::now();
        println!("\n== {}: {} ==", suite.name, suite.about);
        let mut outcome = match (sys::interrupted(), deadline.filter(|end| start >= *end)) {
            (true, _) => Outcome::broken("not run: interrupted"),
            (_, Some(_)) => {
                let minutes = options.deadline_minutes.unwrap_or_default();
                Outcome::broken(format!("not run: the deadline of {minutes} minutes had passed"))
            }
            _ => suite_outcome(suite, options, &mut inside, deadline),
        };
        outcome.time = start.elapsed();
        println!(
            "== {}: {} passed, {} failed in {} ==",
            suite.name,
            outcome.passed,
            outcome.failed,
            closing::clock(outcome.time)
        );
        outcomes.push((suite.name, outcome));
    }
    if wants_node && options.suite.is_empty() {
        let mut table = Outcome::default();
        table.check("every suite is in the table", inside.nothing_unknown());
        outcomes.push(("table", table));
    }
    drop(inside);
    print!("{}", closing::report(&outcomes, began.elapsed()));
    let failed = outcomes.iter().any(|(_, outcome)| outcome.failed > 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn chosen(options: &Options) -> Result<Vec<&'static Suite>, String> {
    let names = || SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>().join(", ");
    if options.filter.is_some() && options.suite.len() != 1 {
        return Err("a filter goes with exactly one --suite".into());
    }
    for name in &options.suite {
        let suite = suites::find(name).ok_or_else(|| format!("no suite '{name}'; there are: {}", names()))?;
        if options.filter.is_some() && !matches!(suite.place, Place::Node(_) | Place::Cluster) {
            return Err(format!("suite '{name}' takes no filter; use cargo test"));
        }
    }
    let wanted =
        |suite: &&Suite| options.suite.is_empty() || options.suite.iter().any(|name| name == suite.name);
    Ok(SUITES.iter().filter(wanted).collect())
}

fn list() {
    for suite in SUITES {
        let place = match suite.place {
            Place::Cargo | Place::Docs | Place::Chart | Place::Packages => "host",
            Place::Node(_) => "node",
            Place::Cluster => "both",
        };
        println!("{:<12} {place}  {}", suite.name, suite.about);
    }
}

fn suite_outcome(
    suite: &Suite,
    options: &Options,
    inside: &mut Inside<'_>,
    deadline: Option<Instant>,
) -> Outcome {
    let budget = if options.full { suite.budget * 4 } else { suite.budget };
    if let Place::Node(programs) = suite.place {
        // Making the node ready is not on the suite's own budget.
        let wish = Wish { full: options.full, filter: options.filter.as_deref(), budget, deadline };
        return inside.suite(suite, programs, &wish);
    }
    if matches!(suite.place, Place::Cluster) {
        let wish = Wish { full: options.full, filter: options.filter.as_deref(), budget, deadline };
        return inside.cluster(suite, &wish);
    }
    let until = Instant::now() + budget;
    let until = deadline.map_or(until, |end| until.min(end));
    match suite.place {
        Place::Docs => {
            let mut outcome = Outcome::default();
            docs::check(until, |name, result| {
                println!("{}: {name}", if result.is_ok() { "ok" } else { "FAILED" });
                if let Err(why) = &result {
                    println!("  {why}");
                }
                outcome.check(name, result);
            });
            outcome
        }
        Place::Chart => chart::suite(until),
        Place::Packages => packages::suite(until),
        _ => unit::suite(until),
    }
}

/// Runs a program, what it prints on our standard output; an error says how it ended.
fn shown(command: Command, until: Instant) -> Result<(), String> {
    let end = stream::stream(command, until, |line| println!("{line}"));
    end.map_err(|error| format!("cannot start it: {error}"))?.good()
}
