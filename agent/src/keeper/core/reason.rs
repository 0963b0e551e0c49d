//! Why a record was refused or a pet withheld: one code per cause, shown to people by the agent.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a record was refused or a pet withheld. The codes are part of the page's format: never reused.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $name = $code,)*
        }

        impl Reason {
            /// The reason with this code.
            pub fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// For people: reads after "because".
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// Nothing is wrong.
    #[default]
    None = 0, "nothing is wrong";
    /// The keeper has just started.
    Started = 1, "the keeper has just started";
    /// The agent never wrote a record.
    NoRecord = 2, "there is no record";
    /// The record doesn't hold together.
    Torn = 3, "the record is torn or its checksum is wrong";
    /// The record was admitted in another boot.
    ForeignBoot = 4, "the record belongs to another boot";
    /// The record was admitted with another keeper.
    ForeignInstance = 5, "the record belongs to another keeper";
    /// The record's era is lower than one that was adopted.
    LowerEra = 6, "the record's era is lower than one seen before";
    /// The record's host epoch was retired.
    RetiredEpoch = 7, "the record's host epoch was retired";
    /// The record's host epoch is lower than the armed one.
    LowerEpoch = 8, "the record's host epoch is lower than the armed one";
    /// The record is older than one that was adopted.
    Stale = 9, "the record is older than one adopted before";
    /// The record's lease ends later than any lease can.
    TooFar = 10, "the record's lease ends later than any lease can";
    /// The lease is too near its end for another pet.
    Expired = 11, "the lease is too near its end for another pet";
    /// A record with a larger host epoch came while one was armed.
    Superseded = 12, "a larger host epoch was admitted";
    /// The watchdog refused a pet.
    DeviceFailed = 13, "the watchdog failed";
    /// The watchdog is not set up yet.
    NotSetUp = 14, "the watchdog is not set up yet";
    /// The kernel doesn't tell the state of the protected slice.
    SliceUnreadable = 15, "the state of the protected slice can't be read";
    /// The slice is not frozen yet.
    NotFrozen = 16, "the protected slice is not frozen yet";
    /// A process is left in the slice.
    NotEmpty = 17, "a process is left in the protected slice";
    /// A helper hasn't answered yet.
    HelperUnfinished = 18, "a helper has not finished";
    /// A helper ended or broke its contract.
    HelperLost = 19, "a helper ended or broke its contract";
    /// A group that the record arms unpinned still has processes in its pinned cgroup.
    PinsUnsettled = 20, "a group that is armed without a pin is left in its pinned cgroup";
    /// An orderly stop was asked for while a host epoch is armed.
    StopWhileArmed = 21, "a stop was refused: a host epoch is armed; drain and release first";
    /// An orderly stop was asked for, but the watchdog must not be disarmed.
    StopWouldReset = 22, "a stop was refused: the watchdog may not be disarmed and would reset the host";
    /// An upgrade was asked for and could not be done.
    UpgradeFailed = 23, "the upgrade failed; the old program goes on";
    /// There is no cgroup2 with freeze and kill: nothing can be protected here.
    NoSlice = 24, "no cgroup2 with freeze and kill: nothing can be protected here";
}
