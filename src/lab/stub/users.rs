//! The people who can log in: `u<N>@example.com` with password `Passw0rd<N>`, N from 1.

use super::state::uuid_from;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    /// A UUID that depends on N only, so every instance knows the same account.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) email: String,
}

/// The account of these credentials.
pub(super) fn authenticate(email: &str, password: &str) -> Option<User> {
    let number = number(email)?;
    (password == format!("Passw0rd{number}")).then(|| User {
        id: uuid_from(0x5d1f_ba5e_0000_4000_8000_0000_0000_0000 | u128::from(number)),
        name: format!("User {number}"),
        email: email.to_owned(),
    })
}

fn number(email: &str) -> Option<u32> {
    let digits = email.strip_prefix('u')?.strip_suffix("@example.com")?;
    let number: u32 = digits.parse().ok().filter(|number| *number > 0)?;
    // "u+1" and "u01" would be further names of the same account.
    (number.to_string() == digits).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seeded_user_has_one_name_and_one_password() {
        let user = authenticate("u7@example.com", "Passw0rd7").unwrap();
        assert_eq!(user.id, "5d1fba5e-0000-4000-8000-000000000007");
        assert_eq!(user.name, "User 7");
        for (email, password) in [
            ("u7@example.com", "Passw0rd8"),
            ("u07@example.com", "Passw0rd7"),
            ("u+7@example.com", "Passw0rd7"),
            ("u0@example.com", "Passw0rd0"),
            ("u7@example.org", "Passw0rd7"),
            ("", ""),
        ] {
            assert_eq!(authenticate(email, password), None, "{email}");
        }
    }
}
