/* The threads that share the work of a kernel call. Needs Python.h and pthreads.
 *
 * Only _runtime.pyx includes it, so that a process has one set of threads for all kernels; with
 * NNET_NO_THREADS it has none, and needs no pthreads.
 *
 * OpenMP ends a parallel region at a barrier, where all of its threads must arrive, also one that
 * the system has not let run yet: beside a busy process that takes longer than most calls. Here
 * the calling thread starts at once, the others take units of work from the same counter as soon
 * as they run, and who comes when all is done is not waited for.
 */
#if !defined(NNET_TEAM_H)
#define NNET_TEAM_H

#include <limits.h>
#include <time.h>

typedef void (*nnet_unit_function)(void *context, Py_ssize_t unit, int thread);

/* --- interrupts ------------------------------------------------------------------------ */

#if defined(CLOCK_MONOTONIC_COARSE)
#define NNET_CLOCK CLOCK_MONOTONIC_COARSE  /* 5 ns a look; it ticks every 1 to 10 ms */
#else
#define NNET_CLOCK CLOCK_MONOTONIC
#endif

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define NNET_IS_MAIN_THREAD() (syscall(SYS_gettid) == getpid())
#elif defined(__APPLE__)
#include <pthread.h>
#define NNET_IS_MAIN_THREAD() pthread_main_np()
#else
#define NNET_IS_MAIN_THREAD() 1
#endif

/* Nanoseconds after which a call asks Python for signals, and from then on how often. */
static long long nnet_patience = 1000000000, nnet_interval = 100000000;

/* What a call remembers between its jobs; and how many calls do: that costs others 1 ns, to find
   out what its thread remembers would cost 10. */
static _Thread_local struct nnet_call {
    long long next_look;                /* when it asks for signals; 0: it had but jobs of a unit */
    PyObject *type, *value, *trace;     /* what a signal handler has raised, or NULL */
} nnet_call;
static int nnet_n_remembered;

static void nnet_set_look(struct nnet_call *call, long long time) {
    int change = (time != 0) - (call->next_look != 0);
    if (change != 0)
        __atomic_fetch_add(&nnet_n_remembered, change, __ATOMIC_RELAXED);
    call->next_look = time;
}

static long long nnet_now(void) {
    struct timespec now;
    clock_gettime(NNET_CLOCK, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Between two units of the calling thread: whether there is no reason to end the call. Python
   runs handlers in the main thread only; others must not wait for a GIL that nobody gives back
   when Python ends. */
static int nnet_goes_on(struct nnet_call *call) {
    long long now = nnet_now();
    if (now < call->next_look)
        return 1;
    nnet_set_look(call, now + nnet_interval);
    if (!NNET_IS_MAIN_THREAD())
        return 1;
    PyGILState_STATE state = PyGILState_Ensure();
    if (PyErr_CheckSignals())
        PyErr_Fetch(&call->type, &call->value, &call->trace);
    PyGILState_Release(state);
    return call->type == NULL;
}

/* After the last job of a call, with the GIL: -1, and what a handler has raised is raised. */
static int nnet_end_call(void) {
    struct nnet_call *call;
    if (__atomic_load_n(&nnet_n_remembered, __ATOMIC_RELAXED) == 0)
        return 0;
    call = &nnet_call;
    nnet_set_look(call, 0);
    if (call->type == NULL)
        return 0;
    PyErr_Restore(call->type, call->value, call->trace);
    call->type = call->value = call->trace = NULL;
    return -1;
}

static void nnet_run_alone(nnet_unit_function run, void *context, Py_ssize_t n_units,
                           struct nnet_call *call) {
    for (Py_ssize_t unit = 0; unit < n_units; unit++) {
        if (unit > 0 && !nnet_goes_on(call))
            return;
        run(context, unit, 0);
    }
}

/* --- the team -------------------------------------------------------------------------- */

#if !defined(NNET_NO_THREADS)
enum { NNET_THREADS = 1 };
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#define NNET_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define NNET_PAUSE() __asm__ volatile("yield")
#else
#define NNET_PAUSE()
#endif

enum { NNET_SPINS = 1000 };  /* 20 to 50 microseconds: about the time between two layers */

struct nnet_team {
    pthread_mutex_t caller;     /* held during a job: one at a time */
    pthread_mutex_t lock;       /* of all that is not atomic */
    pthread_cond_t wake, done;
    int n_workers;              /* threads that were started; they never end */
    nnet_unit_function run;     /* the job */
    void *context;
    Py_ssize_t n_units;
    atomic_llong next;          /* the unit that nobody has taken yet */
    int places;                 /* how many more threads may join it; 0: it is closed */
    int joined;
    atomic_int at_work;         /* those that have joined and not left */
    atomic_uint n_jobs;         /* so far: idle threads watch it */
};
#define NNET_NEW_TEAM {                                                                 \
    .caller = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER,             \
    .wake = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER }
static struct nnet_team nnet_team = NNET_NEW_TEAM;

/* `call` is NULL in workers, which ask for no signals. */
static void nnet_take_units(int thread, struct nnet_call *call) {
    Py_ssize_t unit;
    int is_first = 1;
    while ((unit = atomic_fetch_add(&nnet_team.next, 1)) < nnet_team.n_units) {
        if (call != NULL && !is_first && !nnet_goes_on(call)) {
            atomic_store(&nnet_team.next, nnet_team.n_units);
            return;
        }
        nnet_team.run(nnet_team.context, unit, thread);
        is_first = 0;
    }
}

static void *nnet_worker(void *unused) {
    unsigned int seen = 0;
    (void)unused;
    nnet_call.next_look = LLONG_MAX;    /* it asks for no signals, in jobs within jobs either */
    for (;;) {
        int thread = 0;
        for (int i = 0; i < NNET_SPINS && atomic_load(&nnet_team.n_jobs) == seen; i++)
            NNET_PAUSE();
        pthread_mutex_lock(&nnet_team.lock);
        while (atomic_load(&nnet_team.n_jobs) == seen)
            pthread_cond_wait(&nnet_team.wake, &nnet_team.lock);
        seen = atomic_load(&nnet_team.n_jobs);
        if (nnet_team.places > 0) {
            nnet_team.places--;
            thread = ++nnet_team.joined;
            atomic_fetch_add(&nnet_team.at_work, 1);
        }
        pthread_mutex_unlock(&nnet_team.lock);
        if (thread == 0)
            continue;
        nnet_take_units(thread, NULL);
        pthread_mutex_lock(&nnet_team.lock);
        if (atomic_fetch_sub(&nnet_team.at_work, 1) == 1)
            pthread_cond_signal(&nnet_team.done);
        pthread_mutex_unlock(&nnet_team.lock);
    }
    return NULL;
}

/* A forked child has none of its parent's threads: it starts its own. */
static void nnet_new_team(void) {
    static const struct nnet_team team = NNET_NEW_TEAM;
    memcpy(&nnet_team, &team, sizeof(team));
}

/* Signals of the process wake other threads than these: they inherit a mask that blocks all but
   those that a thread's own faults send it, which faulthandler reports. */
static void nnet_start_workers(int n_workers) {
    static int watches_forks;
    sigset_t all, before;
    pthread_t thread;
    if (nnet_team.n_workers >= n_workers)
        return;
    if (!watches_forks)
        watches_forks = pthread_atfork(NULL, NULL, nnet_new_team) == 0;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (nnet_team.n_workers < n_workers
           && pthread_create(&thread, NULL, nnet_worker, NULL) == 0) {
        pthread_detach(thread);
        nnet_team.n_workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void nnet_share(int places) {
    pthread_mutex_lock(&nnet_team.lock);
    atomic_store(&nnet_team.next, 0);
    nnet_team.places = places;
    nnet_team.joined = 0;
    atomic_fetch_add(&nnet_team.n_jobs, 1);
    while (places-- > 0)
        pthread_cond_signal(&nnet_team.wake);
    pthread_mutex_unlock(&nnet_team.lock);
}

static void nnet_close(void) {
    pthread_mutex_lock(&nnet_team.lock);
    nnet_team.places = 0;
    pthread_mutex_unlock(&nnet_team.lock);
    for (int i = 0; i < NNET_SPINS && atomic_load(&nnet_team.at_work); i++)
        NNET_PAUSE();
    pthread_mutex_lock(&nnet_team.lock);
    while (atomic_load(&nnet_team.at_work))
        pthread_cond_wait(&nnet_team.done, &nnet_team.lock);
    pthread_mutex_unlock(&nnet_team.lock);
}

static int nnet_run_shared(nnet_unit_function run, void *context, Py_ssize_t n_units,
                           int n_threads, struct nnet_call *call) {
    if (pthread_mutex_trylock(&nnet_team.caller))
        return 0;  /* another Python thread has a job */
    nnet_start_workers(n_threads - 1);
    nnet_team.run = run;
    nnet_team.context = context;
    nnet_team.n_units = n_units;
    nnet_share(n_threads - 1);
    nnet_take_units(0, call);
    nnet_close();
    pthread_mutex_unlock(&nnet_team.caller);
    return 1;
}
#else
enum { NNET_THREADS = 0 };
#define nnet_run_shared(run, context, n_units, n_threads, call) 0
#endif

static __attribute__((noinline)) void nnet_run_units(nnet_unit_function run, void *context,
                                                     Py_ssize_t n_units, int n_threads) {
    struct nnet_call *call = &nnet_call;
    if (call->type != NULL)
        return;
    if (n_units > 1 && call->next_look == 0)
        nnet_set_look(call, nnet_now() + nnet_patience);
    if (n_threads > n_units)
        n_threads = (int)n_units;
    if (n_threads <= 1 || !nnet_run_shared(run, context, n_units, n_threads, call))
        nnet_run_alone(run, context, n_units, call);
}

/* Calls run(context, unit, thread) for each unit, on at most n_threads threads: the calling one
   is thread 0, and no two calls that run at a time have the same thread. After an interrupt no
   unit is run any more, of this job or the next ones of the call. */
static inline void nnet_parallel_for(nnet_unit_function run, void *context, Py_ssize_t n_units,
                                     int n_threads) {
    if (n_units == 1 && __atomic_load_n(&nnet_n_remembered, __ATOMIC_RELAXED) == 0)
        run(context, 0, 0);
    else
        nnet_run_units(run, context, n_units, n_threads);
}

#endif
