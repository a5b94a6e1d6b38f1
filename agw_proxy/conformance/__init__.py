"""What a client of each dialect may rely on, checked: for ``agw doctor``, and for tests.

A *frame* is a server-sent event as it came (its name, its data). ``chat``, ``responses``, ``messages`` and ``gemini`` each
walk a stream's frames by the *grammar* of their dialect: ``check(frames)`` gives the first *fault* (which event, what was
expected, what came) or None, ``follow(frames)`` also what was *told* until there (text, calls, usage), and ``whole(tree)``
reads an answer in one piece. The grammars ask for what makes clients fail when it is missing, and leave alone what does
not. ``asking`` says the same questions in each dialect. Nothing here does I/O or imports anything of the gateway.
"""
