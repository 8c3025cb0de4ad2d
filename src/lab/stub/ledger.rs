//! What becomes of logins, written down before anybody is told: the oracle of comparisons. The file outlives a killed
//! process.

use std::collections::HashSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// One line: a sign, the name of a login and, of a new one, whose it is. The name is no secret and opens nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// `+LOGIN USER`: somebody has logged in.
    Granted { login: String, user: String },
    /// `=LOGIN`: a request came with it and was served; written once by each instance.
    Used { login: String },
    /// `?LOGIN`: a request came with it and was refused, as it is not known here.
    Refused { login: String },
    /// `-LOGIN`: its user has ended it.
    Ended { login: String },
}

impl Entry {
    /// The entry that is written like this.
    pub fn parse(line: &str) -> Option<Entry> {
        let mut characters = line.chars();
        let sign = characters.next()?;
        let rest = characters.as_str().to_owned();
        match sign {
            '+' => {
                let (login, user) = rest.split_once(' ')?;
                Some(Entry::Granted { login: login.to_owned(), user: user.to_owned() })
            }
            '=' => Some(Entry::Used { login: rest }),
            '?' => Some(Entry::Refused { login: rest }),
            '-' => Some(Entry::Ended { login: rest }),
            _ => None,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Granted { login, user } => write!(f, "+{login} {user}"),
            Entry::Used { login } => write!(f, "={login}"),
            Entry::Refused { login } => write!(f, "?{login}"),
            Entry::Ended { login } => write!(f, "-{login}"),
        }
    }
}

/// The file, and the logins whose use it tells of.
#[derive(Debug)]
pub(super) struct Ledger {
    file: File,
    used: Mutex<HashSet<String>>,
}

impl Ledger {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Ledger { file, used: Mutex::default() })
    }

    pub(super) fn write(&self, entry: &Entry) -> io::Result<()> {
        if let Entry::Used { login } = entry
            && !self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(login.clone())
        {
            return Ok(());
        }
        // In one piece, so that a kill leaves whole lines.
        (&self.file).write_all(format!("{entry}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_use_is_written_once_and_everything_else_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let ledger = Ledger::open(&path).unwrap();
        let login = || "a".to_owned();
        for entry in [
            Entry::Granted { login: login(), user: "u".to_owned() },
            Entry::Used { login: login() },
            Entry::Used { login: login() },
            Entry::Refused { login: login() },
            Entry::Refused { login: login() },
            Entry::Ended { login: login() },
        ] {
            ledger.write(&entry).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), "+a u\n=a\n?a\n?a\n-a\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(login in "[0-9a-f-]{1,36}", user in "[0-9a-f-]{1,36}") {
            for entry in [
                Entry::Granted { login: login.clone(), user },
                Entry::Used { login: login.clone() },
                Entry::Refused { login: login.clone() },
                Entry::Ended { login },
            ] {
                prop_assert_eq!(Entry::parse(&entry.to_string()), Some(entry));
            }
        }

        #[test]
        fn any_line_is_read_without_a_panic(line in "\\PC{0,40}") {
            let _ = Entry::parse(&line);
        }
    }
}
