"""Models of training that are small enough to be solved exactly, or run in seconds.

They isolate one mechanism each: what noise and curvature do to a schedule (`quadratic`), why a
decay reveals progress (`valley`), what becomes of data that arrives late (`drift`), and why a rate
that oscillates can learn more (`oscillation`).
"""
