#include "infer/infer_fixture.h"
static void first(void **state) {
    (void)state;
    char *folder = fixture_model("hybrid", "pre_hybrid", "0,4", 1);
    struct mm_engine *e = fixture_engine(folder);
    struct mm_session *s;
    OK(mm_session_new(&s, e, &MM_SESSION_OPTIONS, &err));
    const struct mm_picture pic = {.path = "tests/golden/images/photo.jpg"};
    OK(mm_session_add_turn(s, "What is this?", &pic, 1, &err));
    struct mm_answer a;
    struct mm_generation g = {20, 0};
    OK(mm_session_generate(s, &g, NULL, &a, &err));
    printf("%s | %s %ld %ld %f %f\n", a.text, mm_finish_name(a.finish), a.prompt_tokens,
           a.new_tokens, a.ttft_s, a.decode_tok_s);
    struct mm_buf b = {0};
    mm_session_text(s, &b);
    printf("%s\n", b.data);
    char *f = fixture_path("s.safetensors");
    OK(mm_session_save(s, f, &err));
    struct mm_session *t;
    OK(mm_session_load(&t, e, &MM_SESSION_OPTIONS, f, &err));
    struct mm_answer a2;
    OK(mm_session_generate(s, &g, NULL, &a, &err));
    OK(mm_session_generate(t, &g, NULL, &a2, &err));
    printf("%s | %s\n", a.text, a2.text);
    mm_session_free(s);
    mm_session_free(t);
    mm_engine_close(e);
}
int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(first)};
    return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
