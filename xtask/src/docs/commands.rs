//! Command lines of `cryopod` and `cargo xtask` that a page quotes: the subcommands and options in them exist.
//!
//! The truth is the program's own `--help`, asked for each subcommand once.

use std::collections::HashMap;

use super::markdown::Page;

/// Gives the help of a program for a path of subcommands.
pub(super) type Ask<'a> = dyn Fn(&str, &[String]) -> Result<String, String> + 'a;

/// Helps that were asked for already.
pub(super) struct Manuals<'a> {
    ask: &'a Ask<'a>,
    known: HashMap<Vec<String>, Result<String, String>>,
}

impl<'a> Manuals<'a> {
    pub(super) fn new(ask: &'a Ask<'a>) -> Self {
        Self { ask, known: HashMap::new() }
    }

    fn help(&mut self, program: &str, path: &[String]) -> Result<String, String> {
        let key = std::iter::once(program.to_owned()).chain(path.iter().cloned()).collect();
        self.known.entry(key).or_insert_with(|| (self.ask)(program, path)).clone()
    }

    /// What is wrong with the command lines of a page.
    pub(super) fn wrong(&mut self, page: &Page) -> Vec<String> {
        let fences = page.fences.iter().filter(|fence| fence.info.starts_with("console"));
        let quoted = fences.flat_map(super::markdown::Fence::commands).chain(page.spans.iter().cloned());
        let mut found = Vec::new();
        for (line, text) in quoted {
            for (program, words) in ours(&text) {
                if let Err(why) = self.check(program, &words) {
                    found.push(format!("line {line}: `{program} {}`: {why}", words.join(" ")));
                }
            }
        }
        found
    }

    fn check(&mut self, program: &str, words: &[String]) -> Result<(), String> {
        let mut path: Vec<String> = Vec::new();
        let mut help = self.help(program, &path)?;
        for word in words {
            if word == "--" {
                break;
            } else if word.starts_with('-') {
                let name = word.split('=').next().unwrap_or(word);
                if !has_option(&help, name) {
                    return Err(format!("there is no option {name}"));
                }
            } else if subcommands(&help).iter().any(|known| known == word) {
                path.push(word.clone());
                help = self.help(program, &path)?;
            } else if !subcommands(&help).is_empty() && !placeholder(word) && !takes_value(&help, words, word)
            {
                return Err(format!("there is no subcommand {word}"));
            }
        }
        Ok(())
    }
}

/// The command lines of our programs in a line of shell or a code span, cut where the shell or prose goes on.
fn ours(text: &str) -> Vec<(&'static str, Vec<String>)> {
    let mut found = Vec::new();
    for part in text.split(['|', ';', '&', '>']) {
        let part = part.split(" #").next().unwrap_or(part);
        let mut words =
            part.split_whitespace().skip_while(|word| *word == "sudo" || word.contains("=")).peekable();
        let program = match (words.next(), words.peek()) {
            (Some("cargo"), Some(&"xtask")) => {
                words.next();
                "xtask"
            }
            (Some("cryopod"), Some(_)) => "cryopod",
            _ => continue,
        };
        let stop = |word: &&str| *word != "/" && *word != "…" && *word != "..." && *word != "–";
        let words = words.take_while(stop).map(|word| word.trim_matches(['[', ']']).to_owned());
        found.push((program, words.collect()));
    }
    found
}

/// The names below `Commands:`.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let lines = lines.take_while(|line| line.is_empty() || line.starts_with("  "));
    // Names are indented by two; their descriptions, where wrapped, by more.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .map(|name| name.trim_end_matches(',').to_owned())
        .collect()
}

fn has_option(help: &str, name: &str) -> bool {
    let edge = |c: char| c.is_whitespace() || "[]<>=,|.`'()".contains(c);
    help.split(edge).any(|word| word == name)
}

fn placeholder(word: &str) -> bool {
    word.starts_with(['<', '…', '$']) || word.chars().all(|c| c.is_ascii_uppercase() || "_-…".contains(c))
}

/// Whether `word` follows an option that takes a value.
fn takes_value(help: &str, words: &[String], word: &str) -> bool {
    let before = words.iter().position(|w| w == word).and_then(|at| at.checked_sub(1)).map(|at| &words[at]);
    before.is_some_and(|option| {
        option.starts_with('-')
            && help.lines().any(|line| line.contains(option.as_str()) && line.contains('<'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(program: &str, path: &[String]) -> Result<String, String> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match (program, &path[..]) {
            ("cryopod", []) => Ok("Usage\n\nCommands:\n  list  Lists\n  show  Shows\n          one\n\nOptions:\n  -o, --output <FORM>  How\n".into()),
            ("cryopod", ["list"]) => Ok("Options:\n  -o, --output <FORM>  How\n      --all\n".into()),
            _ => Err("no help".into()),
        }
    }

    fn wrong(text: &str) -> usize {
        Manuals::new(&ask).wrong(&Page::parse(text)).len()
    }

    #[test]
    fn what_the_help_knows_is_right() {
        assert_eq!(wrong("`cryopod list --all -o json` `cryopod -o json list` `cryopod`"), 0);
        assert_eq!(wrong("```console\n# cryopod list --all | jq .   # a comment\n```\n"), 0);
        assert_eq!(wrong("`cryopod list … --anything` `cryopod VERB`"), 0);
    }

    #[test]
    fn what_it_does_not_know_is_wrong() {
        assert_eq!(wrong("`cryopod list --al`"), 1);
        assert_eq!(wrong("`cryopod lst`"), 1);
        assert_eq!(wrong("```console\n$ true && cryopod list --every\n```\n"), 1);
    }
}
