//! The little of Markdown that the checks need: links, headings, code spans and fenced blocks, each with its line.

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) links: Vec<(usize, String)>,
    /// The anchors of its headings, as GitHub makes them.
    pub(super) anchors: Vec<String>,
    pub(super) spans: Vec<(usize, String)>,
    pub(super) fences: Vec<Fence>,
}

/// A fenced block.
#[derive(Debug, Default)]
pub(super) struct Fence {
    /// The line of its first line of content.
    pub(super) line: usize,
    /// What stands behind the opening backticks.
    pub(super) info: String,
    pub(super) content: Vec<String>,
}

impl Fence {
    /// The commands of a console block: what stands behind the prompts `$` and `#`, continued lines joined.
    pub(super) fn commands(&self) -> Vec<(usize, String)> {
        let mut commands: Vec<(usize, String)> = Vec::new();
        let mut open = false;
        for (at, line) in self.content.iter().enumerate() {
            let started = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "));
            let text = match (open, started) {
                (true, _) => line.trim(),
                (false, Some(text)) => text,
                (false, None) => continue,
            };
            let (text, more) = text.strip_suffix('\\').map_or((text, false), |text| (text, true));
            match commands.last_mut().filter(|_| open) {
                Some((_, command)) => command.push_str(text),
                None => commands.push((self.line + at, text.to_owned())),
            }
            open = more;
        }
        commands
    }
}

impl Page {
    pub(super) fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut fence: Option<(String, Fence)> = None;
        for (line, text) in text.lines().enumerate().map(|(at, text)| (at + 1, text)) {
            let trimmed = text.trim_start();
            let ticks: String = trimmed.chars().take_while(|c| *c == '`').collect();
            match &mut fence {
                Some((opening, _)) if ticks.len() >= opening.len() && trimmed.trim_end() == ticks => {
                    page.fences.extend(fence.take().map(|(_, fence)| fence));
                }
                Some((_, fence)) => fence.content.push(text.to_owned()),
                None if ticks.len() >= 3 => {
                    let info = trimmed[ticks.len()..].trim().to_owned();
                    fence = Some((ticks, Fence { line: line + 1, info, content: Vec::new() }));
                }
                None => page.line(line, text),
            }
        }
        page
    }

    fn line(&mut self, line: usize, text: &str) {
        if text.starts_with('#') {
            self.anchors.push(anchor(text.trim_start_matches('#').trim()));
        }
        let mut prose = String::new();
        let mut parts = text.split('`');
        while let Some(plain) = parts.next() {
            prose.push_str(plain);
            if let Some(code) = parts.next() {
                self.spans.push((line, code.to_owned()));
            }
        }
        // Split twice, so that the text of a link may have code in it.
        for rest in prose.split("](").skip(1) {
            if let Some((target, _)) = rest.split_once(')') {
                self.links.push((line, target.split(' ').next().unwrap_or(target).to_owned()));
            }
        }
    }
}

/// Lower case, blanks as hyphens, punctuation left out.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# A `node`, for tests\nsee [`x`](a.md#b) and ![p](pic.svg \"t\") and `cryopod list`\n\
                        ```console tested\n$ one \\\n  two\noutput [no](link.md)\n# three\n```\n[end](z.md)\n";

    #[test]
    fn links_spans_headings_and_blocks_are_found() {
        let page = Page::parse(TEXT);
        let links: Vec<_> = page.links.iter().map(|(line, link)| (*line, link.as_str())).collect();
        assert_eq!(links, [(2, "a.md#b"), (2, "pic.svg"), (9, "z.md")]);
        assert_eq!(page.anchors, ["a-node-for-tests"]);
        assert!(page.spans.contains(&(2, "cryopod list".into())));
        assert_eq!(page.fences.len(), 1);
        assert_eq!(page.fences[0].info, "console tested");
    }

    #[test]
    fn commands_are_what_stands_behind_a_prompt() {
        let page = Page::parse(TEXT);
        assert_eq!(page.fences[0].commands(), [(4, "one two".to_owned()), (7, "three".to_owned())]);
    }
}
