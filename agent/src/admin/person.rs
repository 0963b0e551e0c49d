//! Who is at the other end of the admin socket, by what the kernel says.

use quorum::ledger::{Person, PersonKey};

const USERS: &str = "/etc/passwd";

/// The person behind a local process. The name is for people to read; the user id counts.
pub(crate) fn local(uid: u32) -> Person {
    let users = std::fs::read_to_string(USERS).unwrap_or_default();
    let name = name_of(&users, uid).map_or_else(|| format!("uid {uid}"), str::to_owned);
    Person { name, key: PersonKey::Local(uid) }
}

/// Reads the local file only: asking a directory service here could hang the admin API.
fn name_of(users: &str, uid: u32) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id.parse() == Ok(uid) && !name.is_empty()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_from_the_local_file_and_otherwise_by_number() {
        let users = "root:x:0:0:root:/root:/bin/bash\nbroken\nops:x:1000:1000::/home/ops:/bin/sh\n";
        assert_eq!(name_of(users, 1000), Some("ops"));
        assert_eq!(name_of(users, 7), None);
        assert_eq!(local(u32::MAX - 7).name, format!("uid {}", u32::MAX - 7));
        assert_eq!(local(5).key, PersonKey::Local(5));
    }
}
