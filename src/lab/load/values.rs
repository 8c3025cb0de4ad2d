//! Values that a user has captured from responses. They may be secret, so they are sent only to the target
//! and never printed.

use std::collections::BTreeMap;

use crate::secret::Secret;

/// Minimum length of a masked value. Shorter values are not secret, and would match unrelated text.
pub(super) const HIDDEN_FROM: usize = 4;

/// The captured values by name. The number of names and the length of values are limited elsewhere.
#[derive(Debug, Default)]
pub(super) struct Values(BTreeMap<String, Secret<String>>);

impl Values {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.expose().as_str())
    }

    pub(super) fn set(&mut self, name: &str, value: &Secret<String>) {
        match self.0.get_mut(name) {
            Some(own) => own.clone_from(value),
            None => drop(self.0.insert(name.to_owned(), value.clone())),
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// `text` with every value replaced by `{name}`.
    pub(super) fn hidden(&self, text: &str) -> String {
        let secrets = self.0.iter().map(|(name, value)| (name, value.expose()));
        let secrets = secrets.filter(|(_, value)| value.len() >= HIDDEN_FROM);
        secrets
            .fold(text.to_owned(), |text, (name, value)| text.replace(value.as_str(), &format!("{{{name}}}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_replaced_and_never_shown() {
        let mut values = Values::default();
        for value in ["old", "t0ken"] {
            values.set("token", &Secret::new(value.to_owned()));
        }
        values.set("page", &Secret::new("7".to_owned()));
        assert_eq!((values.get("token"), values.get("tokens")), (Some("t0ken"), None));
        assert_eq!(values.hidden("7: t0ken, t0ken!"), "7: {token}, {token}!");
        assert!(!format!("{values:?}").contains("t0ken"));
        values.clear();
        assert_eq!(values.get("token"), None);
    }
}
