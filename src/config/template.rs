//! Templates: texts of a scenario with placeholders that are filled in per request.

use std::fmt;

/// A text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub pieces: Vec<Piece>,
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// `{user}`: the user's number, from 1.
    User,
    /// `{random}`: 16 hexadecimal digits, different for each action.
    Random,
    /// `{cookie:NAME}`: the value of the user's cookie; empty without it.
    Cookie(String),
    /// `{NAME}`: a value captured from a response.
    Value(String),
    /// `{base64:TEXT}`; the text may contain placeholders.
    Base64(Template),
}

/// Why a text is not a valid template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoTemplate {
    /// An unknown placeholder, such as `{cookies:a}`.
    Unknown(String),
    /// A `{base64:` that is not closed.
    Open,
}

impl Template {
    /// Parses a template. Braces around anything but a word, such as those of JSON, are literal text.
    pub(super) fn parse(text: &str) -> Result<Template, NoTemplate> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, behind) = next(rest)?;
            rest = behind;
            match (pieces.last_mut(), piece) {
                (Some(Piece::Text(before)), Piece::Text(text)) => before.push_str(&text),
                (_, piece) => pieces.push(piece),
            }
        }
        Ok(Template { pieces })
    }

    /// The names of the captured values that the template uses.
    pub(crate) fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.pieces.iter().flat_map(|piece| match piece {
            Piece::Value(name) => Box::new(std::iter::once(name.as_str())),
            Piece::Base64(inner) => inner.names(),
            _ => Box::new(std::iter::empty()) as Box<dyn Iterator<Item = &str>>,
        }))
    }

    /// The text with every placeholder replaced by `fill`.
    pub(super) fn sample(&self, fill: &str) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            _ => fill.to_owned(),
        };
        self.pieces.iter().map(piece).collect()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::User => f.write_str("{user}"),
            Piece::Random => f.write_str("{random}"),
            Piece::Cookie(name) => write!(f, "{{cookie:{name}}}"),
            Piece::Value(name) => write!(f, "{{{name}}}"),
            Piece::Base64(inner) => write!(f, "{{base64:{inner}}}"),
        })
    }
}

/// The first piece of a non-empty text, and the rest.
fn next(text: &str) -> Result<(Piece, &str), NoTemplate> {
    let Some(inside) = text.strip_prefix('{') else {
        let (plain, behind) = text.split_at(text.find('{').unwrap_or(text.len()));
        return Ok((Piece::Text(plain.to_owned()), behind));
    };
    if let Some(inner) = inside.strip_prefix("base64:") {
        let (inner, behind) = inner.split_at_checked(closing(inner)?).ok_or(NoTemplate::Open)?;
        let behind = behind.strip_prefix('}').ok_or(NoTemplate::Open)?;
        return Ok((Piece::Base64(Template::parse(inner)?), behind));
    }
    let word = inside.split_once('}').filter(|(word, _)| is_word(word));
    let Some((word, behind)) = word else { return Ok((Piece::Text("{".to_owned()), inside)) };
    let piece = match word.split_once(':') {
        None if word == "user" => Piece::User,
        None if word == "random" => Piece::Random,
        None if !word.contains('.') => Piece::Value(word.to_owned()),
        Some(("cookie", name)) if !name.is_empty() => Piece::Cookie(name.to_owned()),
        _ => return Err(NoTemplate::Unknown(word.to_owned())),
    };
    Ok((piece, behind))
}

/// The index of the brace that closes the one opened before `text`.
fn closing(text: &str) -> Result<usize, NoTemplate> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match (byte, depth) {
            (b'{', _) => depth += 1,
            (b'}', 0) => return Ok(at),
            (b'}', _) => depth -= 1,
            _ => {}
        }
    }
    Err(NoTemplate::Open)
}

fn is_word(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(letter)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_are_found_and_other_braces_stand_for_themselves() {
        let template = Template::parse(r#"{"a": "u{user}", "b": {}, "c": "{cookie:x-y}{random}"}"#).unwrap();
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(
            template.pieces,
            [
                text(r#"{"a": "u"#),
                Piece::User,
                text(r#"", "b": {}, "c": ""#),
                Piece::Cookie("x-y".to_owned()),
                Piece::Random,
                text(r#""}"#),
            ]
        );
        assert_eq!(template.sample("0"), r#"{"a": "u0", "b": {}, "c": "00"}"#);
    }

    #[test]
    fn what_is_encoded_may_have_places() {
        let template = Template::parse("a{base64:Passw0rd{user}}b").unwrap();
        let inner = Template { pieces: vec![Piece::Text("Passw0rd".to_owned()), Piece::User] };
        assert_eq!(template.pieces[1], Piece::Base64(inner));
        assert_eq!(template.pieces.len(), 3);
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        let unknown = |word: &str| Err(NoTemplate::Unknown(word.to_owned()));
        assert_eq!(Template::parse("a{u.r}"), unknown("u.r"));
        assert_eq!(Template::parse("{cookie:}"), unknown("cookie:"));
        assert_eq!(Template::parse("{cookies:a}"), unknown("cookies:a"));
        assert_eq!(Template::parse("{base64:{user}"), Err(NoTemplate::Open));
    }

    #[test]
    fn the_names_of_values_are_known_wherever_they_stand() {
        let template = Template::parse("{user}{token}-{base64:{id}:{cookie:c}}{token}").unwrap();
        assert_eq!(template.names().collect::<Vec<_>>(), ["token", "id", "token"]);
    }

    proptest! {
        #[test]
        fn a_template_is_shown_as_it_was_written(text in "([a-z{}: ]|\\{user\\}|\\{id\\}|\\{base64:)*") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(template.to_string(), text);
            }
        }
    }
}
