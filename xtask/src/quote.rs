//! Quoting for the shell at the other end of ssh: ssh joins its arguments with blanks and hands one line to a shell,
//! so an argument vector survives only when each argument is quoted.

/// One line that a POSIX shell splits into exactly `argv` again.
pub(crate) fn line<A: AsRef<str>>(argv: impl IntoIterator<Item = A>) -> String {
    argv.into_iter().map(|word| quoted(word.as_ref())).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.starts_with('=') && !assigns(word) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// `NAME=value` as first word would set a variable and not run a program.
fn assigns(word: &str) -> bool {
    word.contains('=')
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::line;

    #[test]
    fn a_shell_gets_back_every_argument_as_it_was() {
        let argv =
            ["a b", "", "it's", "$HOME", "\"x\"", "back\\slash", "new\nline", "*", "A=b", "~", "-n", "ü"];
        let script = format!("for w in {}; do printf '%s\\0' \"$w\"; done", line(argv));
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        let words: Vec<_> =
            output.stdout.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        assert_eq!(words[..argv.len()], argv);
    }

    #[test]
    fn plain_words_stay_readable() {
        assert_eq!(line(["zfs", "list", "-Hp", "tank/a@b"]), "zfs list -Hp tank/a@b");
    }
}
