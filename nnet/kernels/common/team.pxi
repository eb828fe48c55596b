# The threads that share the work of a kernel call. Included by _runtime.pyx, so that
# a process has one set of them for all kernels.
#
# OpenMP ends a parallel region at a barrier, where all of its threads must
# arrive, also one that the system has not let run yet: beside a busy process
# that takes longer than most calls. Here the calling thread starts at once, the
# others take units of work from the same counter as soon as they run, and who
# comes when all is done is not waited for.

cdef extern from *:
    """
    #ifdef _OPENMP  /* a serial build has no need of threads */
    #include <pthread.h>
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

    typedef void (*nnet_unit_function)(void *context, Py_ssize_t unit, int thread);

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
    #define NNET_NEW_TEAM {                                                                 \\
        .caller = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER,             \\
        .wake = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER }
    static struct nnet_team nnet_team = NNET_NEW_TEAM;

    static void nnet_take_units(int thread) {
        Py_ssize_t unit;
        while ((unit = atomic_fetch_add(&nnet_team.next, 1)) < nnet_team.n_units)
            nnet_team.run(nnet_team.context, unit, thread);
    }

    static void *nnet_worker(void *unused) {
        unsigned int seen = 0;
        (void)unused;
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
            nnet_take_units(thread);
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

    static void nnet_start_workers(int n_workers) {
        static int watches_forks;
        pthread_t thread;
        if (!watches_forks)
            watches_forks = pthread_atfork(NULL, NULL, nnet_new_team) == 0;
        while (nnet_team.n_workers < n_workers
               && pthread_create(&thread, NULL, nnet_worker, NULL) == 0) {
            pthread_detach(thread);
            nnet_team.n_workers++;
        }
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
                               int n_threads) {
        if (pthread_mutex_trylock(&nnet_team.caller))
            return 0;  /* another Python thread has a job */
        nnet_start_workers(n_threads - 1);
        nnet_team.run = run;
        nnet_team.context = context;
        nnet_team.n_units = n_units;
        nnet_share(n_threads - 1);
        nnet_take_units(0);
        nnet_close();
        pthread_mutex_unlock(&nnet_team.caller);
        return 1;
    }
    #else
    #define nnet_run_shared(run, context, n_units, n_threads) 0
    #endif
    """
    bint nnet_run_shared(unit_function run, void *context, Py_ssize_t n_units, int n_threads) nogil


cdef void parallel_for(unit_function run, void *context, Py_ssize_t n_units,
                       int n_threads) noexcept nogil:
    """Call run(context, unit, thread) for each unit, on at most n_threads threads.

    The calling thread is thread 0. No two calls that run at a time have the same thread.
    """
    cdef Py_ssize_t unit
    n_threads = <int>min(n_threads, n_units)
    if n_threads > 1 and nnet_run_shared(run, context, n_units, n_threads):
        return
    for unit in range(n_units):
        run(context, unit, 0)
