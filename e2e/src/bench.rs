//! `cryopod-e2e bench [--json] [--quick] [KEY…]`: cryopod against containerd's own shim, runc and CRIU, on one node in
//! one run, handlers in turn, since an emulated machine's speed drifts. Absolute times mean nothing here; ratios do.
//!
//! Each key gives `ours`, `stock` (medians; means of memory), `ratio`, the runs behind them and the target that the specification sets.
//! A missed target is reported, not hidden, and does not fail the run: benches are not tests.

mod checkpoints;
mod lxc;
mod memory;
mod starts;
mod templates;

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::suite::Failure;

/// One comparison.
pub struct Figure {
    /// Key of the JSON object, e.g. `pod_start`.
    pub key: &'static str,
    /// What is compared, in words.
    pub what: String,
    /// Unit of the values: `ms` or `bytes`; ratios have none.
    pub unit: &'static str,
    /// Our runs.
    pub ours: Vec<f64>,
    /// The runs of the other side; for `freeze_growth` ours at the smaller size.
    pub stock: Vec<f64>,
    /// The ratio of the middles that is promised at most, if one is.
    pub target: Option<f64>,
    /// What of the runs is compared: [`median`] where time passes, [`mean`] of sizes.
    pub middle: fn(&[f64]) -> f64,
}

impl Figure {
    /// The middle of ours by the middle of the other side.
    pub fn ratio(&self) -> f64 {
        (self.middle)(&self.ours) / (self.middle)(&self.stock)
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what, "unit": self.unit, "ours": (self.middle)(&self.ours),
            "stock": (self.middle)(&self.stock),
            "ratio": self.ratio(), "target": self.target,
            "met": self.target.map(|t| self.ratio() <= t), "runs": {"ours": self.ours, "stock": self.stock},
        })
    }
}

/// Arithmetic mean; NaN for none.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Middle value; the mean of the two middle ones for an even count; NaN for none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    match (n, n % 2) {
        (0, _) => f64::NAN,
        (_, 1) => sorted.get(n / 2).copied().unwrap_or(f64::NAN),
        _ => sorted.get(n / 2 - 1).zip(sorted.get(n / 2)).map_or(f64::NAN, |(a, b)| (a + b) / 2.0),
    }
}

type Group = fn(&Sizes) -> Result<Vec<Figure>, Failure>;

/// How much is done; `--quick` is for trying the bench itself.
pub struct Sizes {
    /// Runs of each side.
    pub runs: usize,
    /// Runs of the stock side's large checkpoint, which takes minutes under emulation.
    pub stock_large_runs: usize,
    /// MiB changed on disk in the large case.
    pub large_mib: u32,
    /// MiB changed on disk in the small case.
    pub small_mib: u32,
    /// MiB of files in the image of the templates.
    pub image_mib: u32,
    /// Runs of each side that unpack that image, each a minute under emulation.
    pub image_runs: usize,
}

/// Runs the groups and prints a table, or JSON with `--json`.
pub fn main(args: &[String]) -> ExitCode {
    let as_json = args.iter().any(|a| a == "--json");
    let sizes = if args.iter().any(|a| a == "--quick") {
        Sizes { runs: 2, stock_large_runs: 1, large_mib: 64, small_mib: 4, image_mib: 16, image_runs: 1 }
    } else {
        Sizes { runs: 5, stock_large_runs: 2, large_mib: 1024, small_mib: 16, image_mib: 500, image_runs: 2 }
    };
    let wanted: Vec<&String> = args.iter().filter(|a| !a.starts_with("--")).collect();
    let groups: [(&str, Group); 5] = [
        ("starts", starts::figures),
        ("memory", memory::figures),
        ("lxc", lxc::figures),
        ("templates", templates::figures),
        ("checkpoints", checkpoints::figures),
    ];
    let mut figures = Vec::new();
    let mut errors = Vec::new();
    for (name, group) in groups {
        if !wanted.is_empty() && !wanted.iter().any(|w| *w == name) {
            continue;
        }
        eprintln!("bench: {name}");
        match group(&sizes) {
            Ok(found) => figures.extend(found),
            Err(error) => errors.push(format!("{name}: {error}")),
        }
    }
    if as_json {
        let keys: serde_json::Map<String, Value> =
            figures.iter().map(|f| (f.key.to_owned(), f.json())).collect();
        println!("{}", json!({"figures": keys, "errors": errors}));
    } else {
        table(&figures);
    }
    for error in &errors {
        eprintln!("bench: {error}");
    }
    if errors.is_empty() && !figures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn table(figures: &[Figure]) {
    println!("{:<24} {:>12} {:>12} {:>5} {:>8} {:>8}", "key", "ours", "stock", "unit", "ratio", "target");
    for f in figures {
        let target = f.target.map_or("–".to_owned(), |t| format!("≤ {t}"));
        let verdict = match f.target {
            Some(t) if f.ratio() > t => "  missed",
            _ => "",
        };
        println!(
            "{:<24} {:>12.1} {:>12.1} {:>5} {:>8.3} {target:>8}{verdict}",
            f.key,
            (f.middle)(&f.ours),
            (f.middle)(&f.stock),
            f.unit,
            f.ratio()
        );
    }
}
