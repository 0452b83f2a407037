/*
 * The lease protocol: why no vserver runs twice. Promela, searched exhaustively by spin (tests/test_model.py).
 *
 *     leader  ◀─ question ──  A  ── escape, return, renewal ──▶  the store: A's lease record, the owner, the leader
 *             ── grant ─────▶ │                                      ▲
 *             ── takeover ─────────────────────────────────────────┘ │ told
 *                             A  ◀─ promise ──  B  ◀─────────────────┘
 *
 * A owns a vserver and B may take it over. A's right to run it rests on grants of the leader, on its session with the
 * store, or on B's promise; what it was given last counts until the latest of their ends. The record of A in the store has
 * a mode and a version:
 *
 *     granted   A may be taken over when the leader's count of its grants has ended, whether A's session lives or not
 *     session   A may be taken over when its session is gone, and that count has ended as well
 *
 * How it is modelled
 *
 * Time is true time in ticks. A timer holds what is left of it; anything may happen between two ticks, any number of
 * times, or not at all. So every delay, loss and standstill is in the model by nobody being made to act: a datagram that
 * is heard late, twice or never, a store that answers late or never, an agent that hangs.
 * Clocks: who holds a right measures it with a clock that may be slow by DRIFT over the longest of the lengths here, and
 * takes DRIFT off; who waits for its end has a clock that is right. HELD is what a holder's length comes to in true time
 * at worst. (That it is shorter at times is in the model, too: nobody must use a right to its end.)
 * Versions are kept as ages: 0 is the record's version, 1 the one before it, OLDEST all that are older, NEVER none at
 * all. Two that are OLDEST count as equal: that allows more than there is.
 * A's session counts from the last write alone. Pings would only make it longer.
 * The leader's own lease is in leadership.pml. Here it is what is shown there: who is inside its lease is the leader that
 * the store names. When leadership ends is left to chance.
 * B's right to run is given (it rests on the same protocol): while B runs it cannot be taken from B. It may be given back.
 *
 * What is not here is not needed: the epoch of the leader that grants (neither in the record nor in a grant), whether A's
 * session lives in granted mode, the mode in A's questions and in the leader's count. The order of the three lengths does
 * not matter to never_two: also searched, by hand: (GRANT, SESSION, PROMISE) = (2, 4, 3), (3, 2, 2) and (3, 4, 3).
 *
 * Every rule has a name. spin -DNAME=false breaks it; tests/test_model.py does so with each of them.
 */

/* --- the rules ---------------------------------------------------------------------------------------------------- */

/* Who holds a right takes off by how much its clock may be slow. */
#ifndef DRIFT_IS_TAKEN_OFF
#define DRIFT_IS_TAKEN_OFF true
#endif

/* A grant counts from the sending of the question, never from the hearing of the answer. */
#ifndef GRANT_COUNTS_FROM_THE_QUESTION
#define GRANT_COUNTS_FROM_THE_QUESTION true
#endif

/* An answer counts for the question whose number it bears, of this very process, and once. */
#ifndef ANSWER_MEETS_ITS_QUESTION
#define ANSWER_MEETS_ITS_QUESTION true
#endif

/* A question bears the version of the record that A goes by; only who has read that very version grants. */
#ifndef GRANT_NAMES_A_VERSION
#define GRANT_NAMES_A_VERSION true
#endif

/* What a leader grants ends with its own lease, so before another can be elected (leadership.pml). */
#ifndef GRANTS_END_WITH_THE_LEADERSHIP
#define GRANTS_END_WITH_THE_LEADERSHIP true
#endif

/* Only the leader grants: who cannot prove that it still is grants nothing. */
#ifndef ONLY_THE_LEADER_GRANTS
#define ONLY_THE_LEADER_GRANTS true
#endif

/* From the sending of a takeover until its outcome is known, nothing is granted to A. */
#ifndef NO_GRANT_DURING_A_TAKEOVER
#define NO_GRANT_DURING_A_TAKEOVER true
#endif

/* A new leader goes by no version that it read before its election. It reads the record, and waits. */
#ifndef NEW_LEADER_READS_ANEW
#define NEW_LEADER_READS_ANEW true
#endif

/* A record that says granted and that the leader reads for the first time counts as a question, from when it was written
   at the latest: A may run for as long by having written it. (The leader knows when it saw that very record first, before
   its election or after it; here it knows when it was written.) */
#ifndef READING_COUNTS_AS_A_QUESTION
#define READING_COUNTS_AS_A_QUESTION true
#endif

/* A takeover waits for the end of the leader's count ... */
#ifndef TAKEOVER_WAITS_FOR_THE_GRANT
#define TAKEOVER_WAITS_FOR_THE_GRANT true
#endif

/* ... also when the record says session: A may not know yet that its escape was performed. */
#ifndef GRANTS_MATTER_IN_SESSION_MODE
#define GRANTS_MATTER_IN_SESSION_MODE true
#endif

/* The transaction of a takeover checks that its sender is the leader, ... */
#ifndef TAKEOVER_CHECKS_THE_LEADERSHIP
#define TAKEOVER_CHECKS_THE_LEADERSHIP true
#endif

/* ... that the record has the version that the leader has read, ... */
#ifndef TAKEOVER_CHECKS_THE_VERSION
#define TAKEOVER_CHECKS_THE_VERSION true
#endif

/* ... in session mode that A's session is gone, ... */
#ifndef TAKEOVER_CHECKS_THE_SESSION
#define TAKEOVER_CHECKS_THE_SESSION true
#endif

/* ... and makes a new version of the record: nothing that A asks or writes counts until it has read what happened. */
#ifndef TAKEOVER_MAKES_A_VERSION
#define TAKEOVER_MAKES_A_VERSION true
#endif

/* What A writes is conditional on the version that it has read together with its ownership, or written itself since. */
#ifndef WRITES_ARE_CONDITIONAL
#define WRITES_ARE_CONDITIONAL true
#endif

/* An escape makes `alive` with it if A's session has none: in granted mode it may have gone unnoticed. */
#ifndef ESCAPE_MAKES_ALIVE
#define ESCAPE_MAKES_ALIVE true
#endif

/* What a write is worth counts from its sending. */
#ifndef WRITE_COUNTS_FROM_ITS_SENDING
#define WRITE_COUNTS_FROM_ITS_SENDING true
#endif

/* The right by a session is no longer than the session. */
#ifndef LEASE_NO_LONGER_THAN_THE_SESSION
#define LEASE_NO_LONGER_THAN_THE_SESSION true
#endif

/* Before a return is sent, the right is cut to the length of a grant: from then on the record may say granted. */
#ifndef RETURN_CUTS_THE_RIGHT
#define RETURN_CUTS_THE_RIGHT true
#endif

/* The guard writes down a cut before it counts; so a guard that starts anew does not undo it. */
#ifndef CUT_IS_WRITTEN_DOWN
#define CUT_IS_WRITTEN_DOWN true
#endif

/* A right that has ended does not come back by a promise. */
#ifndef PROMISES_ONLY_EXTEND
#define PROMISES_ONLY_EXTEND true
#endif

/* Who has promised a vserver does not start it before the end of the promise, whatever it is told. */
#ifndef BOUND_STARTS_NOTHING
#define BOUND_STARTS_NOTHING true
#endif

/* A promise counts from the sending of the question for A, from its hearing for B. */
#ifndef PROMISE_COUNTS_FROM_THE_QUESTION
#define PROMISE_COUNTS_FROM_THE_QUESTION true
#endif

/* B starts by a right of its own, not by what it was told some time ago. */
#ifndef STARTS_BY_A_RIGHT_OF_ITS_OWN
#define STARTS_BY_A_RIGHT_OF_ITS_OWN true
#endif

/* What an agent has promised binds also the agent that is started after it, ... */
#ifndef PROMISES_OUTLIVE_THE_AGENT
#define PROMISES_OUTLIVE_THE_AGENT true
#endif

/* ... and a host that was booted is bound for the length of a promise. */
#ifndef A_BOOT_BINDS
#define A_BOOT_BINDS true
#endif

/* --- lengths ------------------------------------------------------------------------------------------------------ */

#ifndef GRANT
#define GRANT 2
#define SESSION 3
#define PROMISE 2
#endif

#define DRIFT 1
#define HELD(length) ((length) - (DRIFT_IS_TAKEN_OFF -> DRIFT : 0) + DRIFT)
#define SESSION_LEASE (LEASE_NO_LONGER_THAN_THE_SESSION -> SESSION : SESSION + 1)
#define LENGTH(which) ((which) == session -> HELD(SESSION_LEASE) : HELD(GRANT))

#define max(a, b) ((a) > (b) -> (a) : (b))
#define min(a, b) ((a) < (b) -> (a) : (b))
#define implies(premise, conclusion) (!(premise) || (conclusion))

/* --- what there is ------------------------------------------------------------------------------------------------ */

#define OLDEST 2
#define NEVER 3
#define NOBODY 2

mtype:mode = { granted, session };
mtype:write = { idle, sent, done };
mtype:told = { nothing, a_owns, b_owns };

/* In the store: A's record, whether A's session lives (how long yet), the owner, the leader. */
mtype:mode mode = session;
byte alive = SESSION;
byte written = 0;  /* what is left of the length of a grant since it was written, when it says granted */
bool b_is_owner = false;
byte leader = NOBODY;

/* A's guard: the end of its right, and the end that it has written down. */
byte right = SESSION;
byte kept = SESSION;

/* A's agent: whether it knows itself for the owner, and the version it goes by. `asked` is what an answer to its newest
   question would be worth; `answered`: there is one under way. `stray`: an answer to an older question is under way. */
bool owns = true;
byte known = 0;
byte asked = 0;
bool answered = false;
bool stray = false;
byte promise_asked = 0;
bool promised = false;

/* A's write under way: what it would set, what its acknowledgement would be worth, and once it is done the version that
   it made. `late`: one that A has given up, and that may be performed yet. */
mtype:write write = idle;
mtype:mode write_mode = session;
byte write_worth = 0;
byte write_version = 0;
bool late = false;
mtype:mode late_mode = session;

/* Two leaders: the version of A's record that each has read, its count of A's grants, a takeover under way. */
byte seen[2] = NEVER;
byte count[2] = 0;
bool taking[2] = false;

/* B: what it was told, what it has promised, whether it runs the vserver. `b_ran`: it has, and A has read nothing since. */
mtype:told b_told = a_owns;
byte bound = 0;
bool b_runs = false;
bool b_ran = false;

/* What was done last, for the searches that show that all of this happens at all. */
mtype:event = { none, escaped, returned, extended, granted_taken, session_taken, renewed };
#ifdef EVENTS
mtype:event event = none;
#define HAPPENED(what, when) event = ((when) -> what : event)
#else
#define HAPPENED(what, when) skip
#endif

#define HOLDS_A (owns && right > 0)

/* --- A's record in the store -------------------------------------------------------------------------------------- */

inline down(timer) { timer = (timer > 0 -> timer - 1 : 0) }
inline age(version) { version = (version < OLDEST -> version + 1 : version) }
inline no_write() { write = idle; write_mode = session; write_worth = 0; write_version = 0 }

/* A new version: what is under way and conditional on the one before will be refused. That A or a leader hears of the
   refusal late changes nothing, for until then it does less. */
inline new_version() {
    age(known); age(seen[0]); age(seen[1]);
    if
    :: write == done -> age(write_version)
    :: write == sent && WRITES_ARE_CONDITIONAL -> no_write()
    :: else
    fi;
    if :: WRITES_ARE_CONDITIONAL -> late = false; late_mode = session :: else fi;
    if :: TAKEOVER_CHECKS_THE_VERSION -> taking[0] = false; taking[1] = false :: else fi
}

/* In granted mode A's session is of no matter, so it may as well be gone. A write in a session that is gone is refused,
   and is sent again in a new one; the model performs it at once. */
inline perform(what) {
    new_version();
    mode = what;
    written = (what == granted -> GRANT : 0);
    alive = (what == session && implies(!ESCAPE_MAKES_ALIVE, alive > 0) -> SESSION : 0)
}

inline blank(me) { seen[me] = NEVER; count[me] = 0; taking[me] = false }

/* It does not know. But its lease is over, so it grants nothing, and what it sends to the store is refused; so it may
   as well forget all. */
inline deposed(me) {
    if :: ONLY_THE_LEADER_GRANTS && TAKEOVER_CHECKS_THE_LEADERSHIP -> blank(me) :: else fi
}

/* What its sender has read is void from here on: until it hears how this ended it grants nothing, and then it knows. */
inline take_over(sender) {
    d_step {
        taking[sender] && implies(TAKEOVER_CHECKS_THE_LEADERSHIP, leader == sender) ->
        taking[sender] = false;
        if
        :: TAKEOVER_CHECKS_THE_SESSION && mode == session && alive > 0 -> skip
        :: else ->
           HAPPENED(granted_taken, mode == granted); HAPPENED(session_taken, mode == session);
           b_is_owner = true;
           if :: TAKEOVER_MAKES_A_VERSION -> new_version() :: else fi;
           seen[sender] = NEVER; count[sender] = 0
        fi
    }
}

proctype Store() {
    do
    :: d_step { write == sent -> write = done; perform(write_mode); write_version = 0 }
    :: d_step { late -> perform(late_mode); late = false; late_mode = session }
    :: take_over(0)
    :: take_over(1)
    :: d_step { leader != NOBODY && implies(GRANTS_END_WITH_THE_LEADERSHIP, count[leader] == 0) ->
        deposed(leader); leader = NOBODY }
    :: d_step { b_is_owner && !b_runs && leader != NOBODY -> b_is_owner = false }  /* given back */
    od
}

/* --- A ------------------------------------------------------------------------------------------------------------ */

inline no_question() { stray = !ANSWER_MEETS_ITS_QUESTION && (stray || answered); asked = 0; answered = false }
#define extend(end) right = max(right, end)
#define MAY_WRITE (write == idle && implies(WRITES_ARE_CONDITIONAL, known == 0))

proctype A() {
    do
    /* A question to every leader, in whatever mode: A need not return without a grant. A newer one voids the older. */
    :: d_step { asked < HELD(GRANT) -> no_question(); asked = HELD(GRANT) }
    :: d_step { answered && asked > 0 ->
        HAPPENED(renewed, true);
        extend((GRANT_COUNTS_FROM_THE_QUESTION -> asked : HELD(GRANT))); asked = 0; answered = false }
    :: d_step { stray && asked > 0 -> extend(asked); asked = 0; answered = false; stray = false }

    /* Escape, or renewal. */
    :: d_step { MAY_WRITE -> write = sent; write_mode = session; write_worth = LENGTH(session) }
    /* Return. */
    :: d_step { MAY_WRITE -> write = sent; write_mode = granted; write_worth = LENGTH(granted);
        right = (RETURN_CUTS_THE_RIGHT -> min(right, HELD(GRANT)) : right);
        kept = (RETURN_CUTS_THE_RIGHT && CUT_IS_WRITTEN_DOWN -> min(kept, HELD(GRANT)) : kept) }
    /* Acknowledged. */
    :: d_step { write == done ->
        HAPPENED(escaped, HOLDS_A && write_mode == session); HAPPENED(returned, HOLDS_A && write_mode == granted);
        extend((WRITE_COUNTS_FROM_ITS_SENDING -> write_worth : LENGTH(write_mode)));
        known = write_version; no_question(); no_write() }
    /* Given up. It gives no right, and takes none away: the newer write will, whichever of the two comes first. */
    :: d_step { write != idle -> late = (write == sent); late_mode = (late -> write_mode : session); no_write() }

    :: d_step { known != 0 || owns == b_is_owner ->
        if :: known != 0 -> no_question() :: else fi;
        known = 0; owns = !b_is_owner; b_ran = false }

    :: d_step { owns && promise_asked < HELD(PROMISE) -> promise_asked = HELD(PROMISE); promised = false }
    :: d_step { promised && promise_asked > 0 ->
        if
        :: right > 0 || !PROMISES_ONLY_EXTEND ->
           HAPPENED(extended, promise_asked > right);
           extend((PROMISE_COUNTS_FROM_THE_QUESTION -> promise_asked : HELD(PROMISE)))
        :: else
        fi;
        promise_asked = 0; promised = false }

    /* The guard writes down the end, sooner or later, and goes by it when it is started anew. */
    :: d_step { kept != right -> kept = right }
    :: d_step { kept != right -> right = kept }
    /* The agent is started anew: it knows what it asked no more. What it knew of the record, it may as well have read
       from a server of the store that is behind. */
    :: d_step { no_question(); promise_asked = 0; promised = false;
        if :: write != idle -> late = (write == sent); late_mode = (late -> write_mode : session); no_write() :: else fi }
    od
}

/* --- the leaders -------------------------------------------------------------------------------------------------- */

/* Two suffice: the one before still grants, or sends, or it is as good as new. */
proctype Leader(byte me) {
    do
    :: d_step { leader == NOBODY && (me == 0 || seen[0] != NEVER) ->
        leader = me; blank(me);
        if :: !NEW_LEADER_READS_ANEW -> seen[me] = 0 :: else fi }

    :: d_step { leader == me && seen[me] != 0 ->
        seen[me] = 0;
        count[me] = (READING_COUNTS_AS_A_QUESTION -> max(count[me], written) : count[me]) }

    :: d_step { asked > 0 && seen[me] != NEVER &&
        implies(ONLY_THE_LEADER_GRANTS, leader == me) &&
        implies(GRANT_NAMES_A_VERSION, seen[me] == known) &&
        implies(NO_GRANT_DURING_A_TAKEOVER, !taking[me]) ->
        count[me] = GRANT; answered = true }

    :: d_step { leader == me && !taking[me] && !b_is_owner &&
        seen[me] != NEVER && implies(TAKEOVER_CHECKS_THE_VERSION, seen[me] == 0) &&
        implies(TAKEOVER_WAITS_FOR_THE_GRANT && implies(mode == session, GRANTS_MATTER_IN_SESSION_MODE), count[me] == 0) ->
        taking[me] = true }
    od
}

/* --- B ------------------------------------------------------------------------------------------------------------ */

proctype B() {
    do
    :: d_step { b_told = (b_is_owner -> b_owns : a_owns) }
    /* That an owner promises nothing saves nobody, but lets the takeover come to its end. */
    :: d_step { promise_asked > 0 && !promised && b_told == a_owns && !b_runs -> bound = PROMISE; promised = true }
    :: d_step { b_told == b_owns && !b_runs &&
        implies(STARTS_BY_A_RIGHT_OF_ITS_OWN, b_is_owner) &&
        implies(BOUND_STARTS_NOTHING, bound == 0) ->
        b_runs = true; b_ran = owns }
    :: d_step { b_runs -> b_runs = false }
    :: d_step { b_told = nothing; bound = (PROMISES_OUTLIVE_THE_AGENT -> bound : 0) }
    :: d_step { b_told = nothing; b_runs = false; bound = (A_BOOT_BINDS -> PROMISE : 0) }  /* booted */
    od
}

/* --- time --------------------------------------------------------------------------------------------------------- */

proctype Time() {
    do
    :: d_step {
        down(right); down(kept); down(asked); down(promise_asked); down(write_worth);
        down(alive); down(written); down(bound); down(count[0]); down(count[1]);
        if :: asked == 0 -> no_question() :: else fi;
        if :: promise_asked == 0 -> promised = false :: else fi }
    od
}

init { atomic { run Time(); run Store(); run A(); run Leader(0); run Leader(1); run B() } }

/* --- what must hold ----------------------------------------------------------------------------------------------- */

ltl never_two { [] !(HOLDS_A && b_runs) }

/* What ran elsewhere meanwhile is not thawed by a word from before. */
ltl never_back { [] !(HOLDS_A && b_ran) }

/* --- what must happen: each of these is refuted ------------------------------------------------------------------- */

#ifdef EVENTS
ltl no_takeover_of_granted { [] !(event == granted_taken && b_runs) }
ltl no_takeover_of_session { [] !(event == session_taken && b_runs) }
ltl no_escape { [] !(event == escaped && HOLDS_A && mode == session) }
ltl no_return { [] !(event == returned && HOLDS_A && mode == granted) }
ltl no_grant { [] !(event == renewed && HOLDS_A && mode == granted && known == 0) }
ltl no_promise { [] !(event == extended && HOLDS_A && b_is_owner && bound > 0) }
#endif
