"""Small templates of our own, one for each construct, and what Python makes of them.

`python3 constructs.py` writes constructs.json, which a test of router renders again; it needs requirements.txt.
"""
import json
from pathlib import Path

import reference

VARIABLES = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Hi \n"},
        {"role": "assistant", "content": "Grüße 'n' \"q\"", "tool_calls": None},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ],
    "tool": {"name": "f", "parameters": {"type": "object", "items": {"x": 1.0, "y": [True, None]}, "keys": 2}},
    "numbers": [3, 1, 2, 1],
    "people": [
        {"name": "ann", "age": 3, "at": {"x": 1}}, {"name": "Bob", "age": 2, "at": {"x": 2}},
        {"name": "cid", "age": 3}, {"name": "Bob", "age": 1},
    ],
    "nothing": None, "yes": True, "no": False, "text": "Hello World", "lines": "one\ntwo\n\nthree", "empty": "",
    "big": 12345678901234567890, "float": 2.5, "one": 1.0, "tiny": 1e-7, "huge": 1e22, "nested": {"b": {"c": [1, {"d": 2}]}, "a": "z"},
    "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True,
}

EXPRESSIONS = r"""
none is iterable
nothing is none
missing is none
missing is defined
missing is undefined
missing is iterable
missing is sequence
missing is mapping
missing is string
missing is callable
missing is number
'a' is iterable
1 is iterable
{} is iterable
'a' is sequence
{} is sequence
[] is sequence
(1,) is sequence
range(3) is sequence
tool.items() is sequence
none is sequence
{} is mapping
[] is mapping
'a' is string
1 is number
1.0 is number
true is number
'1' is number
1 is integer
true is integer
1.0 is integer
1.0 is float
1 is float
true is boolean
1 is boolean
true is true
1 is true
false is false
0 is false
range is callable
'a'.upper is callable
1 is callable
4 is divisibleby 2
4 is divisibleby(3)
3 is odd
3 is even
2.0 is even
'a' is in 'abc'
1 is in [1, 2]
4 is in([1, 2])
1 is not in [1]
'a' is sameas 'a'
none is sameas none
numbers is sameas numbers
numbers is sameas [3, 1, 2, 1]
'abc' is lower
'ABC' is upper
'a' is eq 'a'
1 is equalto 1.0
1 is ne 2
1 is lt 2
2 is ge 2
2 is greaterthan 1
'upper' is filter
'nope' is filter
'odd' is test
'a' is escaped
3 is odd and 4 is even
not 3 is odd
1 is not odd
true + true
1 + 1.0
1 / 2
4 / 2
7 // 2
-7 // 2
7 % 3
-7 % 3
7 % -3
7.5 // 2
-7.5 % 2
2 ** 10
2 ** -1
2 ** 3 ** 2
-2 ** 2
1 - 2 - 3
2 + 3 * 4 - 1
1 ~ 2 + 3
'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'x'] ~ {'a': none}
'a' 'b' "c"
'ab' * 3
3 * 'ab'
[1] * 2
[1] + [2, 3]
(1,) + (2,)
'a' + 1
1 + 'a'
none + 'a'
[1] + (2,)
missing + 'a'
'a' + missing
'x' ~ missing
1 / 0
1 % 0
1 < 2 < 3
1 < 3 < 2
1 == 1 == 1
1 == 1.0
1 == true
0 == false
'1' == 1
none == false
missing == missing
missing == none
[1, 2] == [1, 2]
[1] == (1,)
{'a': 1} == {'a': 1.0}
'a' < 'b'
[1, 2] < [1, 3]
1 < 'a'
none < 1
missing < 1
'a' in 'abc'
'' in 'abc'
1 in 'abc'
1 in [1, 2]
1.0 in [1, 2]
none in [none]
'role' in messages[0]
'a' not in 'abc'
1 in missing
'a' in none
1 in (1, 2)
2 in range(3)
[1] in [[1]]
[1] in {}
1 and 2
0 and 2
'' or 'x'
none or missing or 0
1 or 2
not ''
not missing
not [0]
1 if true
1 if false
(1 if false) is defined
1 if false else 2
1 if false else 2 if false else 3
text[0]
text[-1]
text[99]
text[1:3]
text[::-1]
text[::2]
text[-3:]
text[:-3]
text[5:2]
numbers[1]
numbers[-1]
numbers[9]
numbers[1:]
numbers[::-1]
numbers[-2:]
numbers[10:]
numbers[3:0:-1]
(1, 2, 3)[1:]
range(9)[2]
none[1:]
none['a']
none.a
none.a.b
missing.a
missing['a']
messages[0].role
messages[0]['role']
messages.0.role
messages[0].nope
messages[0].nope.deep
messages[0]['nope'] is defined
tool.parameters.items
tool.parameters['items']
tool.parameters.keys is callable
tool.parameters['keys']
tool.name
text.nope
text['upper']()
numbers.append
numbers.append(1)
tool.update({'a': 1})
tool.pop('name')
tool.items()
tool.keys()
tool.values()
tool.keys()|list
tool.items()|list
tool.get('name')
tool.get('nope')
tool.get('nope', 'x')
tool.copy() == tool
numbers.count(1)
numbers.index(2)
numbers.index(9)
none
true
false
True
None
1.0
1e16
1e15
123456789.0
1e-5
0.1 + 0.2
1_000
0x1f
1.5e3
float
one
tiny
huge
big
big + 1
-1
+1
- -1
-float
-'a'
[]
[1, 'a', none, true, 1.0, "it's", 'say "x"', 'both \' "']
(1,)
()
(1, 2)
{}
{'a': 1, "b": [none]}
{1: 'x', none: 'y', true: 'z', 1.5: 'w'}
{'a': 1}.a
{1: 2}[1]
{1: 2}[1.0]
{[1]: 2}
'\n\t\\\'\"\x41\u00e9\101'
['\n\t\\\x00\x7f\u00e9\u200b\U0001f600']
text.upper()
text.lower()
'hello wORLD'.capitalize()
"they're bill's".title()
'aB'.swapcase()
'Straße'.upper()
'ΑΣ'.lower()
'ß'.casefold()
' a b '.strip()
'xxaxx'.strip('x')
' a '.lstrip()
' a '.rstrip()
'abc'.removeprefix('a')
'abc'.removesuffix('c')
'a,b,c'.split(',')
'a,b,c'.split(',', 1)
'a,b,c'.rsplit(',', 1)
' a  b '.split()
' a  b c '.split(none, 1)
' a  b c '.rsplit(none, 1)
''.split()
''.split(',')
'abc'.split('')
'a-b'.split('-')[-1]
'a\nb\r\nc\x0bd'.splitlines()
'a\nb\n'.splitlines(true)
'a=b=c'.partition('=')
'a=b=c'.rpartition('=')
'a'.partition('=')
'a'.rpartition('=')
'aaa'.replace('a', 'b')
'aaa'.replace('a', 'b', 2)
'abc'.replace('', '-')
'abc'.startswith('a')
'abc'.startswith(('x', 'a'))
'abc'.startswith('b', 1)
'abc'.endswith('c')
'abc'.endswith(['c'])
'abcb'.find('b')
'abcb'.rfind('b')
'abc'.find('x')
'abc'.index('x')
'äbc'.find('c')
'abab'.count('ab')
'abc'.count('')
','.join(['a', 'b'])
','.join([1])
', '.join('abc')
'a'.center(6)
'ab'.center(5, '*')
'a'.ljust(3) ~ '|'
'a'.rjust(3, '.')
'-7'.zfill(4)
'a\tb'.expandtabs(4)
'abc'.isalpha()
'ab1'.isalnum()
'12'.isdigit()
'1.5'.isdigit()
'٣'.isdecimal()
'½'.isnumeric()
' '.isspace()
'Ab'.istitle()
'a_1'.isidentifier()
'é'.isascii()
'a\n'.isprintable()
''.isalpha()
'{} {}'.format(1, 'a')
'{0} {1} {0}'.format(1, 2)
'{a} {b[x]} {c.d}'.format(a=1, b={'x': 2}, c={'d': 3})
'{:>5}|{:<5}|{:^5}|{:*^5}'.format('a', 'b', 'c', 'd')
'{:05d} {:,} {:.2f} {:e} {:x} {:#x} {:+d} {:%}'.format(42, 1234567, 3.14159, 1500.0, 255, 255, 7, 0.5)
'{!r} {!s}'.format('a', 'a')
'{{}} {}'.format(1)
'{}'.format()
'{:{}}'.format('a', 4)
'{a}'.format_map({'a': 1})
'{:g} {:g} {:g}'.format(0.0001, 1e10, 2.0)
'{}'.format(none)
'{:d}'.format('a')
'%s' % 'a'
'%s %s' % ('a', 1)
'%s' % none
'%s' % [1]
'%s' % (1,)
'%d' % 3.7
'%5d|%-5d|%05d|%+d' % (1, 2, 3, 4)
'%.2f %e %g' % (3.14159, 1500.0, 0.5)
'%x %X %o %#x' % (255, 255, 8, 255)
'%r' % 'a'
'%%' % ()
'%(a)s-%(b)d' % {'a': 1, 'b': 2}
'%s %s' % 'a'
'%s' % ('a', 'b')
'%d' % 'a'
'%5.1f|%-6s|%6s' % (2.25, 'a', 'b')
'%c%c' % ('a', 98)
'a'|upper
text|lower
'hello wORLD'|capitalize
"foo bar-baz (qux) it's"|title
' a '|trim
'xax'|trim('x')
1|trim
none|trim
text|length
numbers|length
tool|length
missing|length
none|length
1|length
range(5)|length
numbers|select('odd')|length
text|replace('o', '0')
text|replace('o', '0', 1)
text|replace('o', '0', count=1)
1234|replace(2, 5)
"<b>"|safe + '<i>' + "'"
'<i>' + ("<b>"|safe)
('<b>'|e) + '<i>'
('<b>'|safe) ~ '<i>'
('<b>'|safe) is escaped
('<b>'|safe)|e
('<b>'|safe)|forceescape
(' <b> '|safe)|trim + '<'
('<b>'|safe)[1:] + '<'
('<b>'|safe)|length
['<b>'|safe, '<']|join
('<b>'|safe) == '<b>'
missing|default('x')
missing|default
empty|default('x')
empty|default('x', true)
empty|default('x', boolean=true)
none|default('x')
none|default('x', boolean=true)
missing|d(1) + 1
missing.a|default('x')
'12'|int
'12.7'|int
'x'|int
'x'|int(default=5)
'x'|int(-1)
'0x1f'|int(base=16)
'1f'|int(0, 16)
none|int
3.9|int
true|int
missing|int
' 7 '|int
'1_000'|int
'1.5'|float
'x'|float
'x'|float(2.5)
'inf'|float
3|float
-3|abs
-3.5|abs
'a'|abs
2.5|round
3.5|round
2.567|round(2)
2.567|round(1, 'floor')
2.1|round(method='ceil')
7|round
1234|round(-2)
1234.5|round(-2)
numbers|first
numbers|last
[]|first
[]|first is defined
text|first
text|last
numbers|sum
people|sum(attribute='age')
numbers|sum(start=10)
numbers|min
numbers|max
people|min(attribute='age')
[]|max is defined
['b', 'A', 'c']|max
numbers|sort
numbers|sort(reverse=true)
['b', 'A', 'c']|sort
['b', 'A', 'c']|sort(case_sensitive=true)
people|sort(attribute='age')|map(attribute='name')|list
people|sort(attribute='age,name')|map(attribute='name')|list
[1, 'a']|sort
numbers|unique|list
['a', 'A', 'b']|unique|list
people|unique(attribute='name')|map(attribute='age')|list
numbers|reverse|list
text|reverse
numbers|reverse
numbers|join
numbers|join(', ')
people|join(',', attribute='name')
people|join(attribute='name', d='-')
[1, none, true, missing]|join('|')
'abc'|join('-')
none|join
people|map(attribute='name')|list
people|map(attribute='at.x')|list
people|map(attribute='at.x', default=0)|list
people|map('length')|list
['a', 'b']|map('upper')|join
['a ', ' b']|map('trim')|list
[' a']|map('replace', 'a', 'b')|list
numbers|map('nope')|list
numbers|map
numbers|map('string')
numbers|select|list
numbers|select('odd')|list
numbers|reject('odd')|list
numbers|select('gt', 1)|list
numbers|select('in', [1, 2])|list
messages|selectattr('role', 'equalto', 'user')|list|length
messages|selectattr('role', '==', 'user')|map(attribute='content')|list
messages|selectattr('tool_calls')|list
messages|selectattr('tool_calls', 'defined')|list|length
messages|rejectattr('role', 'in', ['user', 'system'])|map(attribute='role')|list
messages|rejectattr('tool_calls', 'undefined')|list|length
messages|selectattr('role', 'equalto', 'user')|first
messages|selectattr('role', 'equalto', 'nobody')|first is defined
(messages|selectattr('role', 'equalto', 'nobody')) and 'always'
messages|selectattr('role', 'nope')|list
people|groupby('age')
people|groupby('name')|map('first')|list
(people|groupby('age'))[0].grouper
(people|groupby('age'))[0].list|length
people|groupby('at.x', default=0)|map(attribute=0)|list
tool|items|list
missing|items|list
numbers|items|list
nested|dictsort
nested|dictsort(reverse=true)|map('first')|list
{'b': 1, 'A': 2}|dictsort
{'b': 1, 'A': 2}|dictsort(true)
{'b': 1, 'a': 2}|dictsort(by='value')
{'b': 1, 'a': 'x'}|dictsort(by='value')
numbers|batch(3)|list
numbers|batch(3, 'x')|list
numbers|slice(3)|list
numbers|slice(3, 'x')|list
numbers|list
'abc'|list
none|list
tool|list
1|string ~ 1
none|string
lines|indent
lines|indent(2)
lines|indent(2, true)
lines|indent(width=2, first=true, blank=true)
lines|indent('> ')
lines|indent(2, blank=true)
'Hello big wide world'|truncate(12)
'Hello big wide world'|truncate(12, true)
'Hello big wide world'|truncate(12, end='!', leeway=0)
'hello, two words'|wordcount
'a'|center(5)
'%s-%s'|format(1, 'b')
'%(a)s'|format(a=1)
'a b/c?d=é'|urlencode
{'a b': 'c&d', 'e': 1}|urlencode
1000|filesizeformat
123456789|filesizeformat
123456789|filesizeformat(true)
1|filesizeformat
'<b>a</b> <!-- c --> d'|striptags
tool|attr('name')
text|attr('upper')()
'a'|nope
1 is nope
tool|tojson
tool|tojson(indent=2)
tool|tojson(2)
tool|tojson(indent=0)
tool|tojson(indent='\t')
tool|tojson(true)
nested|tojson(sort_keys=true)
nested|tojson(sort_keys=True, separators=(",", ":"))
nested|tojson(separators=(',', ':'), indent=1)
nested|tojson(false, none, none, true)
'é<>&\'"\\\n\x7f\u2028😀'|tojson
'é<>&\'"\\\n\x7f\u2028😀'|tojson(ensure_ascii=true)
{1: 2, none: 3, true: 4, 1.5: 5}|tojson
{(1, 2): 3}|tojson
{'b': 1, 1: 2}|tojson(sort_keys=true)
[1.0, 1e16, 0.1, 1e-7, -0.0, huge, big]|tojson
('inf'|float)|tojson
('nan'|float)|tojson
(1, [2], ())|tojson
[]|tojson(indent=2)
{}|tojson(indent=2)
[[], {}, [1]]|tojson(indent=2)
missing|tojson
numbers|select|tojson
range(3)|tojson
tool.items()|tojson
text|tojson|length
none|tojson
range(3)
range(3)|list
range(1, 9, 3)|list
range(5, 0, -2)|list
range(0)|list
range(100001)
range(1, 2, 0)
dict(a=1, b=none)
dict({'a': 1}, b=2)
dict([('a', 1)])
namespace(a=1).a
namespace({'a': 1}).a
namespace(a=1)
namespace().nope
strftime_now('%Y-%m-%d')
strftime_now('%d %b %Y, %A %B %j %H:%M:%S %p %I %y %U %w %%')
strftime_now('%-d %e %F %T')
raise_exception('no: ' ~ 1)
nope()
none()
'a'()
text.nope()
lipsum is defined
cycler('a', 'b').next()
joiner(',')()
[1, 2, 3,]
{'a': 1,}
(1, 2,)
[[1, 2], [3]]|map('sum')|list
[1, [2, [3]]]|string
1 if missing else 2
'yes' if text is string and text|length > 3 else 'no'
text is string is true
messages[0].content[:2] ~ '...'
messages[-1].content[0].text
messages[3]['content']|map(attribute='text')|join('\n')
(messages|length) - 1
messages|map(attribute='role')|unique|list
messages[::-1]|map(attribute='role')|list
'a' if none
tool.parameters|string
messages[2]|string
'%s' % tool
big ** 2
(1).real
'abc'.upper().lower()|upper
'x'.join(messages|map(attribute='role'))
[messages|length, -1]|max
'a,b'.split(',')|map('upper')|join(';')
"{'a': 1}"
1.0|string
1e3|int
1.5|int
10|float
'a' ~ ('b' if true)
'a' ~ ('b' if false)
not none is none
not 1 == 2
1 not in [1]
true and not false
2 * 3 ** 2
'a'|upper ~ 'b'|upper
-1|abs
1 + 2|string|length
'1' + 2|string
"a" "b"|upper
messages|selectattr("role","equalto","user")|list|last
['b','a']|sort|first
(['a'] + ['b'])|join
{'a': [1, 2]}['a'][1]
{'a': {'b': 1}}.a.b
"abc"[1:][0]
"é😀x"[1]
"é😀x"|length
"é😀x"[::-1]
caller
loop
varargs is defined
true is boolean and false is boolean
3 == 3.0
'abc' > 'abd'
"\ud83d\ude00" is string
'a\
b'
""" + '"' + r""""
'unterminated
1 +
)
[1
{'a' 1}
a b
'a' | 
1 is
1 = 2
foo(a=1, 2)
not
"""

TEMPLATES = [
    "",
    "plain text",
    "ends with a line\n",
    "ends with two lines\n\n",
    "a\r\nb\rc\n",
    "{# comment #}\nx",
    "a {#- comment -#} b",
    "a\n  {# comment #}\n  b",
    "{% if yes %}\n  x\n{% endif %}\ny",
    "  {% if yes %}  \n  x\n  {% endif %}  y",
    "{%- if yes -%}  \n x \n {%- endif -%} y",
    "  {%+ if yes %}x{% endif +%}\ny",
    "{{ 1 }}\n{{ 2 }}\n",
    "a {{- 1 -}} b",
    "  {{ 1 }}\n  {{- 2 }}",
    "x {{ '{{' }} {{ '%}' }} {{ \"}}\" }}",
    "{% raw %}{{ a }} {% b %}{% endraw %}!",
    "a\n  {% raw %}\n  b {{ c }}\n  {% endraw %}\nd",
    "a {%- raw -%} b {%- endraw -%} c",
    "{{ {'a': {'b': 1}}['a']['b'] }}",
    "{{ {'a':1}}}",
    "{% for n in numbers %}{{ n }},{% endfor %}",
    "{% for n in numbers %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "{% for n in numbers %}{{ loop.previtem }}<{{ n }}>{{ loop.nextitem }} {{ loop.previtem is defined }};{% endfor %}",
    "{% for n in numbers %}{{ loop.cycle('a', 'b') }}{{ loop.changed(n) }};{% endfor %}",
    "{% for n in [] %}x{% else %}none{% endfor %}",
    "{% for n in numbers %}x{% else %}none{% endfor %}",
    "{% for n in numbers if n > 1 %}{{ loop.index }}/{{ loop.length }}:{{ n }};{% else %}none{% endfor %}",
    "{% for n in numbers if n > 9 %}x{% else %}none{% endfor %}",
    "{% for k, v in tool.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in tool|dictsort %}{{ k }};{% endfor %}",
    "{% for k in tool %}{{ k }};{% endfor %}",
    "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}",
    "{% for a, b in [1] %}{{ a }}{% endfor %}",
    "{% for c in text %}{{ c }}.{% endfor %}",
    "{% for n in none %}x{% endfor %}",
    "{% for n in missing %}x{% else %}e{% endfor %}",
    "{% for n in 5 %}x{% endfor %}",
    "{% for n in numbers %}{% if n == 1 %}{% continue %}{% endif %}{{ n }}{% if n == 2 %}{% break %}{% endif %}{% endfor %}",
    "{% break %}",
    "{% for n in numbers %}{% for m in numbers %}{% if m == 1 %}{% break %}{% endif %}{{ n }}{{ m }};{% endfor %}{{ loop.index }}|{% endfor %}",
    "{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor %}",
    "{% for x in [1] %}{{ loop([2]) }}{% endfor %}",
    "{% set x = 1 %}{% for n in numbers %}{% set x = x + n %}{{ x }};{% endfor %}{{ x }}",
    "{% set x = 1 %}{% if yes %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% if yes %}{% set y = 2 %}{% endif %}{{ y }}",
    "{% for n in numbers %}{% set z = n %}{% endfor %}{{ z is defined }}",
    "{% set ns = namespace(x=0) %}{% for n in numbers %}{% set ns.x = ns.x + n %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{% set ns.b, c = 2, 3 %}{{ ns.a }}{{ ns.b }}{{ c }}{{ ns.d is defined }}",
    "{% set d = {} %}{% set d.x = 1 %}",
    "{% set nope.x = 1 %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a, b = [1] %}",
    "{% set a = 1, 2 %}{{ a }}",
    "{% set a = b = 1 %}",
    "{% set true = 1 %}",
    "{% set x %}a{{ 1 }}b{% endset %}{{ x }}|{{ x is string }}",
    "{% set x | upper | trim %} a{{ 1 }}b {% endset %}[{{ x }}]",
    "{% set x %}{% set y = 1 %}{{ y }}{% endset %}{{ x }}{{ y is defined }}",
    "{% if no %}a{% elif missing %}b{% elif yes %}c{% else %}d{% endif %}",
    "{% if numbers, 0 %}a{% endif %}",
    "{% if 1 if no else 2 %}x{% endif %}",
    "{% macro m(a, b=2, c=a) %}[{{ a }},{{ b }},{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c=5) }}{{ m(b=1, a=2) }}{{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=1) }}",
    "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}",
    "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in{{ 1 }}{% endcall %}",
    "{% macro m(l) %}{% for x in l %}<{{ caller(x, loop.index) }}>{% endfor %}{% endmacro %}{% call(a, b) m([7, 8]) %}{{ a }}-{{ b }}{% endcall %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %},{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{% set x = 2 %}{{ m() }}",
    "{% set x = 1 %}{% macro m() %}{% set x = 5 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}",
    "{% macro m() %}{{ n }}{% endmacro %}{% for n in numbers %}{{ m() }}{% endfor %}",
    "{% for n in numbers %}{% macro m() %}{{ n }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% macro m() %}  a  {% endmacro %}[{{ m() | trim }}]{{ m }}{{ m.name }}{{ m.arguments }}",
    "{% macro m(a=1, b) %}{% endmacro %}",
    "{% filter upper %}a{{ 'b' }}{% endfilter %}",
    "{% filter replace('a', 'b') | upper %}aa{% endfilter %}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
    "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}",
    "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}",
    "{% generation %}x{{ 1 }}{% endgeneration %}",
    "a\n{% generation %}\nx\n{% endgeneration %}\nb",
    "{% for m in messages %}{% generation %}{% set t = m.role %}{{ t }}{{ loop.index }}{% endgeneration %}{% endfor %}{{ t is defined }}",
    "{%- for m in messages %}{%- if m.role == 'assistant' %}{%- generation %}{{ m.content }}{%- endgeneration %}{%- endif %}{%- endfor %}",
    "{% block a %}x{{ yes }}{% endblock %}{% block b %}{% set z = 1 %}{% endblock b %}{{ z is defined }}",
    "{% set x = 1 %}{% block a %}{{ x }}{% endblock %}",
    "{% print 1, 2 %}",
    "{% include 'a' %}",
    "{% if no %}{% include 'a' %}{% endif %}x",
    "{% import 'a' as b %}",
    "{% autoescape true %}x{% endautoescape %}",
    "{% do 1 %}",
    "{% nope %}",
    "{% if yes %}",
    "{% endif %}",
    "{% for %}{% endfor %}",
    "{{ 1",
    "{% if",
    "{# open",
    "{% raw %} open",
    "{{ }}",
    "{{ 1 }",
    "{{ 'a' | nope }}",
    "{% if no %}{{ 'a' | nope }}{% endif %}x",
    "{% if yes %}{{ 'a' | nope }}{% endif %}x",
    "{% if no %}{% for n in numbers %}{{ n | nope }}{% endfor %}{% endif %}x",
    "{{ 1 if yes else ('a' | nope) }}",
    "{% if no %}{{ 1 is nope }}{% endif %}x",
    "{{ raise_exception('No ' + 'way') }}",
    "{% if messages[0].role != 'user' %}{{ raise_exception('Roles must be ' ~ ['user']) }}{% endif %}",
    "{%- for message in messages -%}\n<|{{ message.role }}|>\n{%- if message.content is string %}\n{{ message.content | trim }}\n{%- else %}\n{%- for part in message.content %}[{{ part.text }}]{%- endfor %}\n{%- endif %}\n{{- eos_token }}\n{%- endfor -%}\n{%- if add_generation_prompt %}\n<|assistant|>\n{% endif %}",
    "{% for m in messages %}{% if loop.first and m['role'] == 'system' %}{{ bos_token + m['content'] }}{% elif not loop.last %}{{ m.content if m.content is string }}{% endif %}{% endfor %}",
    "{% set first_user = messages | selectattr('role', 'equalto', 'user') | first %}{{ first_user.content | trim }}",
    "{% set users = messages | selectattr('role', 'equalto', 'user') %}{{ users | list | length }}{{ users | list | length }}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{% set _ = c.reset() %}{{ c.next() }}",
    "{% set j = joiner(', ') %}{% for n in numbers %}{{ j() }}{{ n }}{% endfor %}",
    "{% set ns = namespace(found=false) %}{% for m in messages[::-1] %}{% if not ns.found and m.role == 'user' %}{% set ns.found = true %}{% set ns.index = loop.index0 %}{% endif %}{% endfor %}{{ ns.index }}",
    "{{ [1, 2, 3] | map('string') | join(', ') }}{{ '\\n' }}{{ \"\\n\" }}",
    "{%set x=1%}{{x}}{%if x%}y{%endif%}",
    "{{- '' -}}\n\n  x",
    "<b>{{ '<i>' }}{{ '<i>' | safe }}{{ '<&\">' | e }}</b>",
    "{% for a in [1, 2] %}{% for b in [3, 4] %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for a in [1, 2] %}{% set outer = loop %}{% for b in [3] %}{{ outer.index }}{% endfor %}{% endfor %}",
    "{% set tools = none %}{{ tools is none }}{{ tools and 1 }}",
    "{% if tools is defined and tools is iterable and tools | length > 0 %}t{% else %}n{% endif %}",
    "{% set x = namespace(v=[]) %}{% set x.v = x.v + [1] %}{% set x.v = x.v + [2] %}{{ x.v }}",
    "{{ 'a' }}\n\n{% set x = 1 %}\n\n{{ 'b' }}",
    "{%- set x = 1 -%}\n\n{{ x }}",
    "   {%- set x = 1 +%}\n{{ x }}",
    "\n\n{% if yes %}\n\na\n\n{% endif %}\n\n",
    "{{ 'x' }}{% if yes %}\n{% endif %}\n.",
    "\t{% if yes %}\t\n\tx\t{% endif %}\t\n",
    "{%- macro p(x) -%}\n  {{- x -}}\n{%- endmacro -%}\n{{ p(1) }}\n{{ p(2) }}",
    "{% set f = tool.parameters %}{% for k, v in f.items() %}{{ k }}: {{ v | tojson if v is not string else v }}\n{% endfor %}",
    "{% if 'x' in tool and tool.x %}a{% else %}b{% endif %}{{ tool.get('x', {}).get('y', 'z') }}",
    "{% for x in [3,1,2]|sort %}{{ x }}{{ ',' if not loop.last }}{% endfor %}",
    "{% for x in range(3) %}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{{ rest | length }}",
]


def main():
    sources = ["{{ " + line + " }}" for line in EXPRESSIONS.splitlines() if line] + TEMPLATES
    made = [{"template": source, **reference.render(source, VARIABLES)} for source in dict.fromkeys(sources)]
    # What shows where an object lies in memory is not the same twice.
    made = [case for case in made if " at 0x" not in case.get("text", "")]
    whole = {"now_unix_s": reference.NOW_UNIX_S, "variables": VARIABLES, "cases": made}
    place = Path(__file__).with_name("constructs.json")
    place.write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{len(made)} templates")


if __name__ == "__main__":
    main()
