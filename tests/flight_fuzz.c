/* SPDX-License-Identifier: MIT */
/*
 * Streams from standard input, each through the decode-to-symbols program of the flight encoder in a process of its own, so that one that a sanitizer
 * ends does not end the others. Built and fed by benchmarks/differential_fuzz.py.
 *
 *     flight_fuzz FOLDER < cases        cases: size (u32 of this machine) and bytes, one after the other; a line "STATUS CRC" for each on standard
 *                                       output: the exit status (256 + signal where one ended it), CRC-32C of what was written for status 0
 */
#define main flight_symbols_main
#include "flight_symbols.c"
#undef main

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static void write_file(const char *path, const uint8_t *data, size_t size)
{
    FILE *const file = fopen(path, "wb");
    REQUIRE(file != NULL && fwrite(data, 1, size, file) == size);
    REQUIRE(fclose(file) == 0);
}

static int run_child(char *in, char *out)
{
    char name[] = "flight_symbols";
    char *arguments[] = {name, in, out, NULL};
    int status = 0;
    fflush(NULL);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        alarm(20);
        exit(flight_symbols_main(3, arguments));
    }
    REQUIRE(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

int main(int count, char **arguments)
{
    char in[4096], out[4096];
    uint32_t size = 0;
    REQUIRE(count == 2 && strlen(arguments[1]) < sizeof in - 16);
    snprintf(in, sizeof in, "%s/in.rmc", arguments[1]);
    snprintf(out, sizeof out, "%s/out.i32", arguments[1]);
    while (fread(&size, 4, 1, stdin) == 1) {
        uint8_t *const data = allocate(size);
        uint32_t crc = 0;
        REQUIRE(fread(data, 1, size, stdin) == size);
        write_file(in, data, size);
        free(data);
        const int status = run_child(in, out);
        if (status == 0) {
            size_t written = 0;
            uint8_t *const latents = read_file(out, &written);
            crc = remac_crc32c(0, latents, written);
            free(latents);
        }
        printf("%d %08lx\n", status, (unsigned long)crc);
    }
    return 0;
}
