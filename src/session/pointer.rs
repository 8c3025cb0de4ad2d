//! JSON Pointer (RFC 6901) into a session, without allocation for plain names.

use std::borrow::Cow;

use serde_json::Value;

/// The value that `pointer` names below `fields`, which are sorted by name. `None` if there is none, if the pointer is
/// malformed, and for the empty pointer, which names the whole session and so no field of it.
pub(super) fn find<'a>(fields: &'a [(Box<str>, Value)], pointer: &str) -> Option<&'a Value> {
    let mut tokens = pointer.strip_prefix('/')?.split('/').map(unescape);
    let name = tokens.next()?;
    let at = fields.binary_search_by(|(other, _)| (**other).cmp(&name)).ok()?;
    let (_, first) = fields.get(at)?;
    tokens.try_fold(first, |value, token| match value {
        Value::Object(map) => map.get(&*token),
        Value::Array(items) => items.get(index(&token)?),
        _ => None,
    })
}

fn unescape(token: &str) -> Cow<'_, str> {
    match token.contains('~') {
        true => Cow::Owned(token.replace("~1", "/").replace("~0", "~")),
        false => Cow::Borrowed(token),
    }
}

/// RFC 6901 section 4: digits without a leading zero.
fn index(token: &str) -> Option<usize> {
    let canonical = token == "0" || token.starts_with(|first: char| ('1'..='9').contains(&first));
    canonical.then(|| token.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn sample() -> Value {
        json!({"user": {"id": 42, "": "empty", "a/b": 1, "m~n": 2, "0": "zero"}, "roles": ["x", ["y"]], "": 0})
    }

    fn look(pointer: &str) -> Option<Value> {
        let fields: Vec<_> =
            sample().as_object().unwrap().clone().into_iter().map(|(k, v)| (k.into(), v)).collect();
        find(&fields, pointer).cloned()
    }

    #[test]
    fn names_and_indices_are_followed() {
        assert_eq!(look("/user/id"), Some(json!(42)));
        assert_eq!(look("/roles/1/0"), Some(json!("y")));
        assert_eq!(look("/user/a~1b"), Some(json!(1)));
        assert_eq!(look("/user/m~0n"), Some(json!(2)));
        assert_eq!(look("/"), Some(json!(0)));
    }

    #[test]
    fn what_is_not_there_is_none() {
        for pointer in ["", "user", "/nobody", "/user/id/x", "/roles/2", "/roles/-", "/roles/01", "/roles/+1"]
        {
            assert_eq!(look(pointer), None, "{pointer}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(pointer in "(/(user|roles|id|0|1|01|a~1b|m~0n|~01|x)?){1,4}") {
            prop_assert_eq!(look(&pointer), sample().pointer(&pointer).cloned());
        }
    }
}
