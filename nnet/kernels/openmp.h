/* The OpenMP runtimes that others have loaded, and the limits set on them. Needs Python.h.
 *
 * nnet has threads of its own (team.h), but obeys who limits those of the process: threadpoolctl,
 * with which scikit-learn and joblib do so, sets the number of each runtime that it finds. With
 * whom a runtime came, and whether before nnet or after it, makes no difference: extension
 * modules keep their libraries to themselves, so that these are looked for by their names, again
 * whenever another library has been loaded. To be called with the GIL.
 */
#if !defined(NNET_OPENMP_H)
#define NNET_OPENMP_H

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { NNET_MAX_RUNTIMES = 8 };

static struct nnet_openmp {
    const char *path;
    int (*max_threads)(void);
    int n_processors;
} nnet_openmp[NNET_MAX_RUNTIMES];
static int nnet_n_runtimes;

/* The names that threadpoolctl knows. Intel's runtime is one of LLVM's. */
static int nnet_is_openmp(const char *path, int *is_llvm) {
    const char *name = strrchr(path, '/');
    name = name == NULL ? path : name + 1;
    *is_llvm = strncmp(name, "libomp", 6) == 0 || strncmp(name, "libiomp", 7) == 0;
    return *is_llvm || strncmp(name, "libgomp", 7) == 0;
}

static void nnet_add_runtime(const char *path) {
    struct nnet_openmp *runtime = nnet_openmp + nnet_n_runtimes;
    int (*n_processors)(void);
    void *library;
    for (int i = 0; i < nnet_n_runtimes; i++)
        if (strcmp(nnet_openmp[i].path, path) == 0)
            return;
    library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
    if (nnet_n_runtimes == NNET_MAX_RUNTIMES || library == NULL)
        return;
    *(void **)&runtime->max_threads = dlsym(library, "omp_get_max_threads");
    *(void **)&n_processors = dlsym(library, "omp_get_num_procs");
    if (runtime->max_threads == NULL || n_processors == NULL)
        return;
    runtime->path = strdup(path);
    runtime->n_processors = n_processors();
    nnet_n_runtimes++;
}

/* --- what is loaded -------------------------------------------------------------------- */

struct nnet_paths { char *path[NNET_MAX_RUNTIMES]; int n, n_llvm; };

static void nnet_note_path(struct nnet_paths *paths, const char *path) {
    int is_llvm;
    if (path != NULL && paths->n < NNET_MAX_RUNTIMES && nnet_is_openmp(path, &is_llvm)) {
        paths->path[paths->n++] = strdup(path);
        paths->n_llvm += is_llvm;
    }
}

#if defined(__APPLE__)
#include <mach-o/dyld.h>

static unsigned long long nnet_n_loaded(void) { return _dyld_image_count(); }

static void nnet_note_paths(struct nnet_paths *paths) {
    for (uint32_t i = 0; i < _dyld_image_count(); i++)
        nnet_note_path(paths, _dyld_get_image_name(i));
}
#else
#include <link.h>

static int nnet_get_adds(struct dl_phdr_info *info, size_t size, void *n_loaded) {
    (void)size;
    *(unsigned long long *)n_loaded = info->dlpi_adds;
    return 1;  /* every library knows */
}

static unsigned long long nnet_n_loaded(void) {
    unsigned long long n_loaded = 0;
    dl_iterate_phdr(nnet_get_adds, &n_loaded);
    return n_loaded;
}

static int nnet_note_library(struct dl_phdr_info *info, size_t size, void *paths) {
    (void)size;
    nnet_note_path((struct nnet_paths *)paths, info->dlpi_name);
    return 0;
}

static void nnet_note_paths(struct nnet_paths *paths) {
    dl_iterate_phdr(nnet_note_library, paths);
}
#endif

/* How many there are. Two of LLVM's end the process once both are used, if it was not told that
   this is all right: then neither is asked. */
static int nnet_find_openmp(void) {
    static unsigned long long n_seen;
    unsigned long long n_loaded = nnet_n_loaded();
    struct nnet_paths paths = {.n = 0};
    int is_llvm;
    if (n_loaded == n_seen)
        return nnet_n_runtimes;
    n_seen = n_loaded;
    nnet_note_paths(&paths);
    for (int i = 0; i < paths.n; i++) {
        nnet_is_openmp(paths.path[i], &is_llvm);
        if (!is_llvm || paths.n_llvm == 1 || getenv("KMP_DUPLICATE_LIB_OK") != NULL)
            nnet_add_runtime(paths.path[i]);
        free(paths.path[i]);
    }
    return nnet_n_runtimes;
}

/* The least number of threads that was set on any of them, in this thread; 0 if on none.
   A runtime starts with `usual` threads, or, if that is 0, with one for each processor. */
static int nnet_openmp_limit(int usual) {
    int limit = 0, n = nnet_find_openmp();
    for (int i = 0; i < n; i++) {
        int n_threads = nnet_openmp[i].max_threads();
        int is_set = n_threads != (usual > 0 ? usual : nnet_openmp[i].n_processors);
        if (is_set && n_threads > 0 && (limit == 0 || n_threads < limit))
            limit = n_threads;
    }
    return limit;
}

static const char *nnet_openmp_path(int i) { return nnet_openmp[i].path; }

#endif
