//! The command line of a program as a value that prints the way a person would type it.

use std::ffi::OsStr;
use std::fmt;

/// A program and its arguments, kept for messages; `Display` quotes for a POSIX shell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Argv(Vec<String>);

impl Argv {
    /// Takes the program and its arguments; bytes that are not UTF-8 are replaced, as this is for reading.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a OsStr>) -> Self {
        Self(words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect())
    }

    /// The words, unquoted, the program first.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Argv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            quote(word, f)?;
        }
        Ok(())
    }
}

fn quote(word: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+#^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return f.write_str(word);
    }
    write!(f, "'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_a_shell_needs_it() {
        let words = ["zfs", "set", "cryopod:note=it's here", "tank/a@x", ""];
        let argv = Argv::new(words.iter().map(OsStr::new));
        assert_eq!(argv.to_string(), r"zfs set 'cryopod:note=it'\''s here' tank/a@x ''");
    }
}
