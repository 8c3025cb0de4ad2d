//! Errors of a session store.

/// Why a call to a session store failed. Carries the kind only: error texts of servers and clients may
/// contain keys and addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StoreError {
    #[error("the session store did not answer in time")]
    Timeout,
    #[error("there is no connection to the session store")]
    Disconnected,
    #[error("no trusted connection to the session store could be made")]
    Tls,
    #[error("all connections to the session store are busy")]
    Busy,
    #[error("the session store refuses our credentials or a command we need")]
    Auth,
    #[error("the session store is loading its data")]
    Loading,
    #[error("the session store is read-only")]
    ReadOnly,
    #[error("the session store has lost its primary")]
    PrimaryDown,
    #[error("the session store is moving its data")]
    Moving,
    #[error("the session store is busy with a script")]
    Script,
    #[error("the session store is out of memory")]
    OutOfMemory,
    #[error("the session store cannot persist writes")]
    NotDurable,
    #[error("the session store takes no more clients")]
    MaxClients,
    #[error("a key in the session store is of another type than the command is for")]
    WrongType,
    #[error("the session store broke the protocol")]
    Protocol,
    #[error("the session store rejected the command")]
    Rejected,
}

impl StoreError {
    /// Whether a healthy server rejects the command, permanently or temporarily. Such an error is no sign of
    /// a broken connection.
    pub(crate) fn is_refusal(self) -> bool {
        matches!(
            self,
            StoreError::Auth | StoreError::Rejected | StoreError::OutOfMemory | StoreError::NotDurable
        )
    }

    /// The label in logs and metrics.
    pub fn kind(self) -> &'static str {
        match self {
            StoreError::Timeout => "timeout",
            StoreError::Disconnected => "disconnected",
            StoreError::Tls => "tls",
            StoreError::Busy => "busy",
            StoreError::Auth => "auth",
            StoreError::Loading => "loading",
            StoreError::ReadOnly => "readonly",
            StoreError::PrimaryDown => "primary_down",
            StoreError::Moving => "moving",
            StoreError::Script => "script",
            StoreError::OutOfMemory => "out_of_memory",
            StoreError::NotDurable => "not_durable",
            StoreError::MaxClients => "max_clients",
            StoreError::WrongType => "wrong_type",
            StoreError::Protocol => "protocol",
            StoreError::Rejected => "rejected",
        }
    }
}
