//! The kinds under the contract suite: **the one place where a new kind is listed**.
//!
//! A case says how to set up a device of the kind with a stand-in behind it, and which faults that stand-in can show.

use super::rigs::{Pill, Scripted, Service, Storage};
use fencing::device::Device;
use fencing::key::VolumeClaim;
use fencing::name::VolumeName;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The password that every stand-in wants, and that must never be seen outside.
pub const PASSWORD: &str = "hunter2";
/// The machine behind every stand-in.
pub const MACHINE: &str = "11111111-2222-3333-4444-0000000000aa";

/// How a stand-in misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It takes `off` and nothing changes.
    AcceptAndStayOn,
    /// It says nothing.
    Hang,
    /// It says what nobody understands.
    Garbage,
    /// It refuses the login, and repeats the password in its message.
    RefuseLogin,
    /// It ends in the middle.
    BreakOff,
    /// It is another machine's.
    OtherMachine,
}

/// What stands behind a device.
pub trait Rig: Send + Sync {
    /// Switches the thing on or off, past the device.
    fn set_on(&self, on: bool);
    /// Whether it is on.
    fn is_on(&self) -> bool;
    /// Misbehaves from now on.
    fn begin(&self, fault: Fault);
    /// Irreversible requests that arrived.
    fn offs(&self) -> usize;
    /// What others on this machine could see: argument lists.
    fn seen_outside(&self) -> String {
        String::new()
    }
    /// Processes that hang.
    fn hanging(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A device with what stands behind it.
pub struct Bench {
    pub device: Arc<dyn Device>,
    pub rig: Box<dyn Rig>,
    pub claims: BTreeMap<VolumeName, VolumeClaim>,
}

/// A kind under the suite.
pub struct Case {
    pub kind: &'static str,
    pub faults: &'static [Fault],
    /// Called within a runtime. `None`: nothing to call, the kind waits.
    pub bench: Option<fn() -> Bench>,
}

use Fault::{AcceptAndStayOn, BreakOff, Garbage, Hang, OtherMachine, RefuseLogin};

pub const CASES: [Case; 10] = [
    Case {
        kind: "fence_agent",
        faults: &[AcceptAndStayOn, Hang, Garbage, RefuseLogin, BreakOff],
        bench: Some(|| Scripted::bench("fence_agent", AGENT, AGENT_TABLE)),
    },
    Case {
        kind: "ipmi",
        faults: &[AcceptAndStayOn, Hang, Garbage, RefuseLogin, BreakOff, OtherMachine],
        bench: Some(|| Scripted::bench("ipmi", IPMITOOL, IPMI_TABLE)),
    },
    Case {
        kind: "redfish",
        faults: &[AcceptAndStayOn, Hang, Garbage, RefuseLogin, BreakOff, OtherMachine],
        bench: Some(Service::bench),
    },
    Case {
        kind: "libvirt",
        faults: &[AcceptAndStayOn, Hang, Garbage, RefuseLogin, BreakOff, OtherMachine],
        bench: Some(|| Scripted::bench("libvirt", VIRSH, LIBVIRT_TABLE)),
    },
    Case { kind: "reservation", faults: &[AcceptAndStayOn, Hang, Garbage, OtherMachine], bench: Some(Storage::bench) },
    Case { kind: "sbd", faults: &[Garbage], bench: Some(Pill::bench) },
    Case {
        kind: "command",
        faults: &[AcceptAndStayOn, Hang, Garbage, RefuseLogin, BreakOff, OtherMachine],
        bench: Some(|| Scripted::bench("command", ADAPTER, COMMAND_TABLE)),
    },
    Case { kind: "self", faults: &[], bench: None },
    Case { kind: "watchdog", faults: &[], bench: None },
    Case { kind: "operator", faults: &[], bench: None },
];

const AGENT_TABLE: &str =
    "agent = 'PROGRAM'\nwired = 'ops-1'\noptions = { ip = '10.0.0.9' }\nsecrets = { password = SECRET }";
const AGENT: &str = r#"
while read -r line; do
  case $line in action=*) action=${line#action=};; password=*) password=${line#password=};; esac
done
case $action in metadata)
  echo '<resource-agent name="fence_sample" shortdesc="A stand-in"><parameters>'
  echo '<parameter name="ip" required="1"><content type="string"/></parameter>'
  echo '<parameter name="password" required="0"><content type="string"/></parameter></parameters>'
  echo '<actions><action name="on" automatic="0"/><action name="off"/><action name="status"/></actions></resource-agent>'
  exit 0;;
esac
case $fault in
  RefuseLogin) echo "Login Incorrect for $password" >&2; exit 1;;
  Garbage) exit 77;;
esac
[ "$password" = hunter2 ] || exit 1
case $action in
  status) is_on && exit 0; exit 2;;
  off) off; exit 0;;
esac
exit 1
"#;

const IPMI_TABLE: &str = "program = 'PROGRAM'\nhost = '10.0.0.9'\nuser = 'admin'\npassword = SECRET\ncipher = 3";
const IPMITOOL: &str = r#"
[ "$fault" = RefuseLogin ] && { echo "> RAKP 2 HMAC is invalid ($IPMI_PASSWORD)" >&2; exit 1; }
[ "$IPMI_PASSWORD" = hunter2 ] || exit 1
[ "$fault" = Garbage ] && { echo "Chassis Power is offline, or so"; exit 0; }
while read -r request; do
  case $request in
    'chassis power status') is_on && echo 'Chassis Power is on' || echo 'Chassis Power is off';;
    'raw 0x06 0x37') [ "$fault" = OtherMachine ] && last=bb || last=aa
      echo " 11 11 11 11 22 22 33 33 44 44 00 00 00 00 00 $last";;
    'chassis power off') off; echo 'Chassis Power Control: Down/Off';;
    *) exit 1;;
  esac
done
"#;

const LIBVIRT_TABLE: &str = "program = 'PROGRAM'\nuri = 'qemu+tls://hyp-1/system'\ndomain = 'app1'";
const VIRSH: &str = r#"
for last in "$@"; do :; done
[ "$fault" = RefuseLogin ] && { echo "error: authentication failed: hunter2" >&2; exit 1; }
[ "$fault" = Garbage ] && { echo "State: shut off"; exit 0; }
[ "$fault" = OtherMachine ] && tail=bb || tail=aa
case $last in
  'dominfo app1')
    is_on && state=running || state='shut off'
    printf 'Name:           app1\nUUID:           11111111-2222-3333-4444-0000000000%s\nState:          %s\nPersistent:     yes\n' $tail "$state";;
  'destroy app1') off; echo "Domain 'app1' destroyed";;
  *) exit 1;;
esac
"#;

const COMMAND_TABLE: &str = "program = 'PROGRAM'\nsecrets = { token = SECRET }";
const ADAPTER: &str = r#"
read -r request
case $request in *'"token":"hunter2"'*) ;; *) exit 1;; esac
[ "$fault" = RefuseLogin ] && { echo '{"api_version":1,"error":{"kind":"login-refused","text":"not hunter2"}}'; exit 0; }
[ "$fault" = Garbage ] && { echo '{"power":"off"}'; exit 0; }
[ "$fault" = OtherMachine ] && tail=bb || tail=aa
case $request in
  *'"act":"read"'*) is_on && power=on || power=off
    echo '{"api_version":1,"power":"'$power'","identity":{"uuid":"11111111-2222-3333-4444-0000000000'$tail'"}}';;
  *'"act":"off"'*) off; echo '{"api_version":1,"accepted":true}';;
esac
"#;
