//! JSON objects whose fields keep the order they are written in, so that frames read like Dify's.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;

/// A JSON object in written order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Object(pub(super) Vec<(&'static str, Field)>);

/// A value in an [`Object`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Field {
    Plain(Value),
    Nested(Object),
}

impl<T: Into<Value>> From<T> for Field {
    fn from(value: T) -> Self {
        Field::Plain(value.into())
    }
}

impl From<Object> for Field {
    fn from(object: Object) -> Self {
        Field::Nested(object)
    }
}

impl Object {
    /// The fields of `self`, then those of `rest`.
    pub(super) fn then(mut self, rest: Object) -> Object {
        self.0.extend(rest.0);
        self
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, field) in &self.0 {
            match field {
                Field::Plain(value) => map.serialize_entry(name, value)?,
                Field::Nested(object) => map.serialize_entry(name, object)?,
            }
        }
        map.end()
    }
}

/// `object! { "name": value, … }`; a value is anything that becomes a [`Value`], or another [`Object`].
macro_rules! object {
    ($($name:literal: $value:expr),* $(,)?) => {
        $crate::lab::stub::ordered::Object(vec![
            $(($name, $crate::lab::stub::ordered::Field::from($value))),*
        ])
    };
}
pub(super) use object;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stay_in_written_order() {
        let object =
            object! { "b": 1, "a": object! { "z": "x", "y": Value::Null } }.then(object! { "0": true });
        assert_eq!(serde_json::to_string(&object).unwrap(), r#"{"b":1,"a":{"z":"x","y":null},"0":true}"#);
    }
}
