//! The controls that the walk can go around, one for each rule of the checker. The product has no switch for any of
//! them: what is switched off is this harness's own call of the product, or the truth that it hands to it.

/// One control, by the rule that must fail without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Control {
    /// ACK001: the policy says who must approve. Off: every change is decided as level standard.
    Policy,
    /// ACK002: a no counts. Off: the press is written down, its vote is not.
    Rejection,
    /// ACK003: the gate looks at the very change and files that leave. Off: it is shown those of the proposal.
    Binding,
    /// ACK004: after a crash the remote is asked for the commit. Off: it is pushed again.
    SingleUse,
    /// ACK005: approvals expire. Off: the clock that desk, state machine and gate are given stops before that.
    Expiry,
    /// ACK006: the journal takes an intent only on the state that it was decided on. Off: its refusal is ignored.
    Order,
    /// ACK007: one change of one field, and refused content is refused. Off: proposals are not held against others.
    OneChange,
    /// ACK008: nothing leaves under the emergency stop. Off: the worker is told that there is none.
    Stop,
    /// ACK009: what the journal cannot take does not happen. Off: the worker goes on from memory.
    Journal,
}

impl Control {
    /// The rule that fails without it.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Policy => "ACK001",
            Self::Rejection => "ACK002",
            Self::Binding => "ACK003",
            Self::SingleUse => "ACK004",
            Self::Expiry => "ACK005",
            Self::Order => "ACK006",
            Self::OneChange => "ACK007",
            Self::Stop => "ACK008",
            Self::Journal => "ACK009",
        }
    }
}
