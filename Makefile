# sudo make demo    watch a vserver survive the power cut of its host
# sudo make test    every test
# sudo make bench   measure takeovers and moves, beside keepalived and Pacemaker
# All install what they need: Debian packages, .venv, Python packages.

PYTHON   ?= /usr/bin/python3
VENV     := .venv
BIN      := $(VENV)/bin
PACKAGES := python3-dev python3-venv gcc libcap-dev libseccomp2 zookeeper default-jre-headless rsync openssh-server \
            openssh-client nftables iproute2 mmdebstrap btrfs-progs busybox-static s6 tini zstd acl attr postgresql-client \
            spin

## What the bench measures beside us: fetched, never installed. Only the hosts of the bench see it (tests/bench/peers.py).
PEERS      := keepalived pacemaker pacemaker-cli-utils corosync resource-agents
PEERS_AT   := /var/cache/failover/peers
PEERS_APT  := apt-get -qq -o Dir::Cache::archives=$(PEERS_AT) -o APT::Sandbox::User=root
PEERS_FETCH = $(PEERS_APT) install -y --no-install-recommends --download-only $(PEERS) >/dev/null

## Real agents for the tests: fetched, and unpacked where a test wants them. Installed, fence-agents brings along 97 MB.
AGENTS     := fence-agents python3-pexpect python3-ptyprocess
AGENTS_AT  := /var/cache/failover/agents
AGENTS_GET  = cd $(AGENTS_AT) && apt-get -qq -o APT::Sandbox::User=root download $(AGENTS)

## The first rsync that confines its sender to the tree (--confine-root). Debian 12 has it among the security updates.
RSYNC      := 3.5
RSYNC_FITS  = dpkg --compare-versions "$$(dpkg-query -W -f='$${Version}' rsync)" ge $(RSYNC)

.PHONY: setup demo test bench clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml Makefile
	@[ "$$(id -u)" = 0 ] || { echo "this needs root: sudo make $(MAKECMDGOALS)"; exit 1; }
	@dpkg-query -W -f='$${db:Status-Status}\n' $(PACKAGES) 2>&1 | grep -qv '^installed$$' \
	  && { echo "installing Debian packages"; apt-get update -qq \
	       && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PACKAGES) >/dev/null; } || true
	@dpkg-query -W $(PACKAGES) >/dev/null
	@$(RSYNC_FITS) || { echo "upgrading rsync to $(RSYNC)"; apt-get update -qq \
	  && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq rsync >/dev/null; }
	@$(RSYNC_FITS) || { echo "rsync >= $(RSYNC) is needed; Debian 12 has it in bookworm-security"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "installing Python packages into $(VENV)"
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[test]'
	@touch $@

demo: setup
	@$(BIN)/python -m failover demo

## What needs the machine (hosts, servers) goes first, and has it for itself; the rest uses all processors.
test: setup
	@mkdir -p $(AGENTS_AT)
	@[ -n "$$(ls $(AGENTS_AT))" ] || { $(AGENTS_GET); } || { apt-get update -qq && $(AGENTS_GET); }
	@$(BIN)/python -m pytest -m needs || failed=1; $(BIN)/python -m pytest -m 'not needs' -n auto --dist loadgroup || failed=1; [ -z "$$failed" ]

bench: setup
	@mkdir -p $(PEERS_AT)/partial
	@$(PEERS_FETCH) || { apt-get update -qq && $(PEERS_FETCH); }
	@$(PEERS_APT) autoclean
	@$(BIN)/python -m tests.bench takeover
	@$(BIN)/python -m tests.bench move

clean:
	@[ ! -x $(BIN)/python ] || $(BIN)/python -m failover lab down --all
	rm -rf $(VENV) build *.egg-info
