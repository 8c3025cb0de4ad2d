//! Finds the paths that a Rust source names, without understanding the rest of it.

/// A path such as `crate::config::Config` and the line it starts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedPath {
    /// `["", "redis", "cmd"]` for `::redis::cmd`.
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// Whether a `use` or `extern crate` names it.
    pub(crate) import: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

impl Token {
    fn is_name(&self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
    }
}

/// All paths of two or more segments, all imports, and the modules declared here.
pub(crate) fn named_paths(source: &str) -> Vec<NamedPath> {
    let tokens = tokens(source);
    let mut cursor = Cursor { tokens: &tokens, at: 0 };
    let mut paths = Vec::new();
    while let Some(token) = cursor.peek() {
        match token.text.as_str() {
            "use" => {
                cursor.at += 1;
                cursor.use_tree(&[], &mut paths);
            }
            "extern" if cursor.text(1) == "crate" => {
                cursor.at += 2;
                cursor.use_tree(&[], &mut paths);
            }
            "mod" => cursor.module(&mut paths),
            _ => cursor.expression_path(&mut paths),
        }
    }
    paths
}

struct Cursor<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn text(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| &token.text)
    }

    /// Takes `a::b::c` and stops behind it; `line` is that of its first token.
    fn segments(&mut self) -> Vec<String> {
        let mut segments = Vec::new();
        if self.text(0) == "::" {
            segments.push(String::new());
            self.at += 1;
        }
        while let Some(token) = self.peek().filter(|token| token.is_name()) {
            segments.push(token.text.clone());
            self.at += 1;
            if self.text(0) != "::" {
                break;
            }
            self.at += 1;
        }
        segments
    }

    fn use_tree(&mut self, prefix: &[String], paths: &mut Vec<NamedPath>) {
        let line = self.peek().map_or(0, |token| token.line);
        let segments = [prefix, &self.segments()].concat();
        match self.text(0) {
            "{" => {
                self.at += 1;
                while !matches!(self.text(0), "}" | "") {
                    self.use_tree(&segments, paths);
                    while self.text(0) == "," {
                        self.at += 1;
                    }
                }
                self.at += 1;
            }
            "*" => {
                self.at += 1;
                paths.push(NamedPath { segments, line, import: true });
            }
            _ => {
                if segments.len() == prefix.len() {
                    self.at += 1; // not a use tree (`use<'a>` of a bound): go on behind it
                    return;
                }
                paths.push(NamedPath { segments, line, import: true });
                if self.text(0) == "as" {
                    self.at += 2;
                }
            }
        }
    }

    /// `mod x` brings a name into scope just as `use self::x` does.
    fn module(&mut self, paths: &mut Vec<NamedPath>) {
        self.at += 1;
        if let Some(name) = self.peek() {
            let segments = vec!["self".to_owned(), name.text.clone()];
            paths.push(NamedPath { segments, line: name.line, import: true });
            self.at += 1;
        }
    }

    fn expression_path(&mut self, paths: &mut Vec<NamedPath>) {
        let Some(first) = self.peek() else { return };
        let (line, continues_generics) = (first.line, self.at > 0 && self.tokens[self.at - 1].text == ">");
        if !first.is_name() && (first.text != "::" || continues_generics) {
            self.at += 1;
            return;
        }
        let start = self.at;
        let segments = self.segments();
        self.at = self.at.max(start + 1);
        if segments.len() > 1 {
            paths.push(NamedPath { segments, line, import: false });
        }
    }
}

/// Names, `::`, arrows and single other characters; comments, strings and character literals are left out.
fn tokens(source: &str) -> Vec<Token> {
    let characters: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < characters.len() {
        let end = token_end(&characters, at);
        let text: String = characters[at..end].iter().collect();
        let is_code = matches!(text.as_str(), "::" | "->" | "=>")
            || text.starts_with(|first: char| first.is_alphanumeric() || first == '_')
                && !text.ends_with(['"', '#'])
            || text.chars().count() == 1 && !text.trim().is_empty();
        let lines = text.matches('\n').count();
        if is_code {
            tokens.push(Token { text, line });
        }
        line += lines;
        at = end;
    }
    tokens
}

fn token_end(characters: &[char], at: usize) -> usize {
    let starts = |text: &str| text.chars().enumerate().all(|(i, c)| characters.get(at + i) == Some(&c));
    match characters[at] {
        '/' if starts("//") => find(characters, at, |c| c == '\n'),
        '/' if starts("/*") => block_comment_end(characters, at),
        ':' if starts("::") => at + 2,
        '-' | '=' if starts("->") || starts("=>") => at + 2,
        '"' => string_end(characters, at + 1),
        '\'' => character_end(characters, at),
        first if first.is_alphanumeric() || first == '_' => {
            let end = find(characters, at, |c| !c.is_alphanumeric() && c != '_');
            let word: String = characters[at..end].iter().collect();
            match (word.as_str(), characters.get(end)) {
                ("r" | "br" | "cr", Some('"' | '#')) => raw_string_end(characters, end),
                ("b" | "c", Some('"')) => string_end(characters, end + 1),
                _ => end,
            }
        }
        _ => at + 1,
    }
}

fn find(characters: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    characters[from..].iter().position(|&c| wanted(c)).map_or(characters.len(), |offset| from + offset)
}

fn block_comment_end(characters: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (1, start + 2);
    while at < characters.len() && depth > 0 {
        match (characters[at], characters.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at
}

fn string_end(characters: &[char], mut at: usize) -> usize {
    while at < characters.len() && characters[at] != '"' {
        at += if characters[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(characters.len())
}

/// `start` is behind the `r`. A raw identifier (`r#type`) ends right there.
fn raw_string_end(characters: &[char], start: usize) -> usize {
    let quote = find(characters, start, |c| c != '#');
    if characters.get(quote) != Some(&'"') {
        return start;
    }
    let hashes = quote - start;
    let mut at = quote + 1;
    while at < characters.len() {
        let tail = &characters[at + 1..(at + 1 + hashes).min(characters.len())];
        if characters[at] == '"' && tail.len() == hashes && tail.iter().all(|&c| c == '#') {
            return at + 1 + hashes;
        }
        at += 1;
    }
    at
}

/// A character literal as a whole; of a lifetime only the apostrophe.
fn character_end(characters: &[char], at: usize) -> usize {
    match (characters.get(at + 1), characters.get(at + 2)) {
        (Some('\\'), Some(_)) => (find(characters, at + 3, |c| c == '\'') + 1).min(characters.len()),
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Vec<(String, usize)> {
        named_paths(source).into_iter().map(|path| (path.segments.join("::"), path.line)).collect()
    }

    fn expected(paths: &[(&str, usize)]) -> Vec<(String, usize)> {
        paths.iter().map(|(path, line)| ((*path).to_owned(), *line)).collect()
    }

    #[test]
    fn use_trees_are_expanded_with_their_lines() {
        let source = "use crate::{\n    config::{Config, Mode as M},\n    session::*,\n};\nuse redis;\n";
        assert_eq!(
            found(source),
            expected(&[
                ("crate::config::Config", 2),
                ("crate::config::Mode", 2),
                ("crate::session", 3),
                ("redis", 5)
            ])
        );
    }

    #[test]
    fn paths_in_expressions_types_and_attributes_are_found() {
        let source =
            "#[derive(clap::Parser)]\nfn f(x: &crate::config::Config) -> ::redis::Cmd {\n  a::<b::C>::d()\n}";
        assert_eq!(
            found(source),
            expected(&[("clap::Parser", 1), ("crate::config::Config", 2), ("::redis::Cmd", 2), ("b::C", 3)])
        );
    }

    #[test]
    fn comments_strings_and_characters_are_not_code() {
        let source = "// use crate::a;\n/* use crate::b; /* crate::c */ */\nlet s = \"crate::d \\\" crate::e\";\n\
                      let r = r#\"crate::f \" \"#; let q = '\"'; let e = '\\''; fn g<'a>(x: &'a crate::g::H) {}";
        assert_eq!(found(source), expected(&[("crate::g::H", 4)]));
    }

    #[test]
    fn lines_go_on_behind_strings_of_several_lines() {
        assert_eq!(found("let s = \"\n\n\";\ncrate::a::b();"), expected(&[("crate::a::b", 4)]));
    }

    #[test]
    fn imports_are_told_from_expressions() {
        let imports: Vec<bool> = named_paths("use a::b;\nc::d();").iter().map(|path| path.import).collect();
        assert_eq!(imports, [true, false]);
    }

    #[test]
    fn a_declared_module_counts_as_an_import() {
        assert_eq!(
            found("pub mod redis;\nredis::open();"),
            expected(&[("self::redis", 1), ("redis::open", 2)])
        );
    }

    #[test]
    fn a_precise_capture_is_no_import() {
        assert_eq!(found("fn f<'a>() -> impl Sized + use<'a> { x::y() }"), expected(&[("x::y", 1)]));
    }
}
