# build, demo and test are what most people want; `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
GO ?= go
PREFIX ?= /usr/local
FUZZTIME ?= 10s
# What happens in `make crash`: SIGKILLs, cut connections, full disks, power cuts.
KILLS ?= 500
CUTS ?= 200
FULL ?= 50
CLOCK ?= 50
POWER ?= 60
# How long `make soak` runs.
TIME ?= 1h
# Histories of the simulation, and the first seed.
SEEDS ?= 2000
SEED ?= 1
# Which figures: Mount, Live, Sustained, CommitRemote, Backup, NothingChanged, Scaling, LargeMail, EqualMails; DovecotBackup,
# DovecotNothingChanged, DovecotMount.
BENCH ?= .
# Given to every `go test`; CI says -v, to see what was skipped.
TESTFLAGS ?=
# The detector slows dsyncfs down by a factor; what it finds is worth the time.
TIMEOUT ?= 30m

# End-to-end tests run the built program; everything else is a unit test.
UNITS = $$($(GO) list ./... | grep -v /integration)

.DEFAULT_GOAL := build
.PHONY: help build setup demo demo-clean test check unit race sim mutants integration crash soak lint bench fstest fuzz install clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

build: ## bin/dsyncfs
	$(GO) build -trimpath -o bin/dsyncfs ./cmd/dsyncfs

setup: ## the programs and the mail that tests and demo use (needs root if something is missing)
	@integration/setup.sh

demo: setup build ## a mailbox of real mail, mounted and mirrored through a real ssh server
	@integration/demo/demo.sh start

demo-clean: ## end what the demo started and remove it
	@integration/demo/demo.sh clean

test: setup lint sim race integration ## everything

check: lint ## the fast part of test: seconds, no mounts, no race detector
	$(GO) test -short -timeout=2m $(TESTFLAGS) ./mirror/... ./remote/... ./cmd/... ./fusefs/inode ./integration/imports

unit: ## all but the end-to-end tests
	$(GO) test -timeout=$(TIMEOUT) $(TESTFLAGS) $(UNITS)

race: ## unit with the race detector
	$(GO) test -race -timeout=$(TIMEOUT) $(TESTFLAGS) $(UNITS)

sim: ## SEEDS simulated histories with faults, from SEED on, on all processors
	SIM_SURVEY=$(SEEDS) SIM_SEED=$(SEED) $(GO) test -count=1 -timeout=0 -run '^TestSurvey$$' -v ./mirror/sim

mutants: ## deliberate mistakes, each of which the simulation must see
	SIM_MUTANTS=$(SEEDS) $(GO) test -count=1 -timeout=0 -run '^TestMutants' -v ./mirror/sim

# Results are not kept: the tests run a program that `go test` does not know they depend on.
integration: ## end to end, on real mail and with real programs, with the race detector
	$(GO) test -race -count=1 -p 1 -timeout=$(TIMEOUT) $(TESTFLAGS) ./integration/...

lint: ## format, vet, staticcheck, import rules, go.mod
	@unformatted=$$(gofmt -l cmd fusefs integration mirror remote); [ -z "$$unformatted" ] || { echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) test $(TESTFLAGS) ./integration/imports
	$(GO) mod tidy -diff

crash: setup ## KILLS, CUTS, FULL disks and CLOCK steps of a mirror under load, and POWER cuts: nothing lost, nothing doubled, nothing to repair
	DSYNCFS_CRASH_KILLS=$(KILLS) DSYNCFS_CRASH_CUTS=$(CUTS) DSYNCFS_CRASH_FULL=$(FULL) DSYNCFS_CRASH_CLOCK=$(CLOCK) DSYNCFS_CRASH_POWER=$(POWER) \
		$(GO) test -count=1 -timeout=0 -v ./integration/crash

soak: setup ## a mirror with everything around it for TIME: what it takes, and whether that grows
	DSYNCFS_SOAK_TIME=$(TIME) $(GO) test -count=1 -timeout=0 -v ./integration/soak

bench: setup ## speed and memory beside cp, doveadm and mbsync, as ratios within one run
	@$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime 1x -timeout 60m ./integration/bench | grep -v '^Benchmark'

fstest: build ## a mount under stress-ng, fio and, if PJDFSTEST names a built checkout, pjdfstest (needs root)
	@integration/fstest.sh $(PJDFSTEST)

fuzz: ## every fuzz target for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
		found=$$($(GO) test -list '^Fuzz' $$pkg); \
		for target in $$(grep '^Fuzz' <<<"$$found"); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x $$pkg; \
		done; \
	done

install: build ## to PREFIX, also under the name dsync
	install -D -m 755 bin/dsyncfs $(DESTDIR)$(PREFIX)/bin/dsyncfs
	ln -sf dsyncfs $(DESTDIR)$(PREFIX)/bin/dsync
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	bin/dsyncfs completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/dsyncfs
	install -D -m 644 docs/dsyncfs.toml $(DESTDIR)$(PREFIX)/share/doc/dsyncfs/dsyncfs.toml

clean: ## remove what was built (demo-clean removes the demo)
	rm -rf bin
