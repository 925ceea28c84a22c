//! Completions: kubectl runs `kubectl_complete-cryopod` with the words so far and wants lines, then `:` and a directive of the
//! cobra library (4: no file names). `kubectl cryopod completion SHELL` is for the program by its own name.

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::args::Cli;
use crate::error::Error;

/// No file names.
const NO_FILES: &str = ":4";

/// Whether kubectl asks.
pub(crate) fn is_asked(argv: &[String]) -> bool {
    let name = argv.first().map(Path::new).and_then(Path::file_name);
    name.is_some_and(|name| name.to_string_lossy().starts_with("kubectl_complete-"))
}

/// Answers.
pub(crate) fn answer(argv: &[String]) -> ExitCode {
    for line in candidates(argv.get(1..).unwrap_or_default()) {
        println!("{line}");
    }
    println!("{NO_FILES}");
    ExitCode::SUCCESS
}

/// The verbs and flags that the last word may become.
fn candidates(words: &[String]) -> Vec<String> {
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let mut command = Cli::command();
    command.build();
    let mut at = &command;
    for word in before.iter().filter(|word| !word.starts_with('-')) {
        match at.find_subcommand(word) {
            Some(sub) => at = sub,
            None => break,
        }
    }
    let verbs = at.get_subcommands().filter(|sub| !sub.is_hide_set()).map(|sub| {
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        (sub.get_name().to_owned(), about)
    });
    let flags = at.get_arguments().filter(|_| last.starts_with('-')).filter_map(|flag| {
        let about = flag.get_help().map(ToString::to_string).unwrap_or_default();
        flag.get_long().map(|long| (format!("--{long}"), about))
    });
    let all = verbs.chain(flags).filter(|(word, _)| word.starts_with(last));
    all.map(|(word, about)| format!("{word}\t{}", about.lines().next().unwrap_or_default())).collect()
}

/// The completions of a shell.
pub(crate) fn print(shell: clap_complete::Shell) -> Result<(), Error> {
    clap_complete::generate(shell, &mut Cli::command(), "kubectl-cryopod", &mut std::io::stdout());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        candidates(&words).iter().filter_map(|line| line.split('\t').next()).map(str::to_owned).collect()
    }

    #[test]
    fn verbs_and_flags_are_completed() {
        assert_eq!(words("che"), ["checkpoint"]);
        assert_eq!(words("schedule s"), ["suspend"]);
        assert!(words("restore --as-").contains(&"--as-pod".to_owned()));
        assert!(words("").contains(&"doctor".to_owned()));
    }

    #[test]
    fn kubectl_asks_by_the_name() {
        assert!(is_asked(&["/usr/bin/kubectl_complete-cryopod".into(), String::new()]));
        assert!(!is_asked(&["kubectl-cryopod".into()]));
    }
}
