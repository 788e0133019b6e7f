#!/bin/sh
# The last step of the base image, run as root inside it, the same whether its root filesystem came from
# mmdebstrap or from a registry: accounts, directories, git's system settings, and no privilege left lying about.
set -eu

# Fixed ids are part of the contract with the host: the agent, trusted servers that hold a secret, our sockets.
groupadd --gid 1000 agentuser
groupadd --gid 1001 mcpuser
groupadd --gid 1002 bridge
useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash agentuser
useradd --uid 1001 --gid 1001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin mcpuser
useradd --uid 1002 --gid 1002 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin bridge

# Mount points of the session's volumes; the engine copies owner and mode of these into a new empty volume.
install -d -o 1000 -g 1000 -m 0755 /workspace
install -d -o 1000 -g 1000 -m 0700 /home/agentuser/.config /home/agentuser/.local /home/agentuser/.local/share
install -d -m 0755 /opt/coding-agents

install -d -m 0755 /usr/lib/coding-agents
# Neither a shell in front of it nor the program's own entry, which loads more than this needs: it runs with every push.
cat > /usr/lib/coding-agents/git-relay <<'EOF'
#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "/opt/coding-agents/guest.pyz")
from coding_agents_guest.relay_client import main

sys.exit(main())
EOF
# Programs that hooks of agents and git's settings name. The program of a session is as old as the session: what it
# does not have yet ends quietly where nothing is lost by that, and with a reason where git waits for an answer.
shim() {
  cat > "/usr/lib/coding-agents/$1" <<EOF
#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "/opt/coding-agents/guest.pyz")
try:
    from coding_agents_guest.$2 import main
except ImportError:
    sys.exit($3)
sys.exit(main($4))
EOF
  chmod 0755 "/usr/lib/coding-agents/$1"
}
shim tool-hook toolhook 0 ''
shim git-credential credential_client 0 'sys.argv[1:]'
shim sign-openpgp sign_client '"this session cannot sign"' '"openpgp", sys.argv[1:]'
shim sign-ssh sign_client '"this session cannot sign"' '"ssh", sys.argv[1:]'
shim commit-trailers trailers 0 'sys.argv[1:]'

# For the agent: why a URL is refused, in a session whose network has a proxy.
cat > /usr/local/bin/coding-agents-why <<'EOF'
#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "/opt/coding-agents/guest.pyz")
try:
    from coding_agents_guest.egress.why import main
except ImportError:
    sys.exit("coding-agents-why: this session has no proxy")
sys.exit(main(sys.argv[1:]))
EOF
chmod 0755 /usr/lib/coding-agents/git-relay /usr/local/bin/coding-agents-why

# git asks one program for every git:// connection: the guest's end of the relay. The LFS filter belongs to
# the system, because a repository that uses it must look as clean inside as it does on the host. What a session has
# beside this stands in a file that the bridge writes before the gate opens, and that the agent cannot replace.
cat > /etc/gitconfig <<'EOF'
[core]
	gitProxy = /usr/lib/coding-agents/git-relay
[safe]
	directory = /workspace
	directory = /workspace/*
[init]
	defaultBranch = main
	templateDir = /usr/lib/coding-agents/template
[push]
	default = current
[remote]
	pushDefault = local
[advice]
	detachedHead = false
	defaultBranchName = false
[filter "lfs"]
	clean = git-lfs clean -- %f
	smudge = git-lfs smudge -- %f
	process = git-lfs filter-process
	required = true
[include]
	path = /run/coding-agents/gitconfig
EOF

# New repositories, the session's own among them, name agent and session in each commit (coding_agents_guest.trailers).
# A repository that has hooks of its own somewhere else goes without.
install -d -m 0755 /usr/lib/coding-agents/template/hooks
ln -s /usr/lib/coding-agents/commit-trailers /usr/lib/coding-agents/template/hooks/prepare-commit-msg

# no-new-privileges makes these bits useless to the agent; without them nothing depends on that flag alone.
find / -xdev -type f -perm /6000 -exec chmod a-s {} +
for program in $(find / -xdev -type f -exec getcap {} + 2>/dev/null | cut -d' ' -f1); do setcap -r "$program"; done

# What must differ between machines, and what can be fetched again. /tmp is left alone: mmdebstrap still has
# its apt configuration there, and without it would go on to clean the lists of the machine that builds.
: > /etc/machine-id
rm -f /var/lib/dbus/machine-id /etc/ssh/ssh_host_*
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/cache/debconf/*-old \
  /var/lib/dpkg/*-old /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/log/bootstrap.log \
  /var/cache/ldconfig/aux-cache /var/tmp/*
