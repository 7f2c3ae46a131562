"""The words of vended host names: short, neutral, easy to say. Their order is part of every vended name.

Rules:
- Lower-case letters only, three to nine of them; no names, nothing that insults or frightens.
- Never sort, insert or remove: a name is an index into these lists. Append only with a new derivation.
"""

# ruff: noqa: SIM905 - five hundred words read better as words than as string literals

from __future__ import annotations

from typing import Final

__all__ = ["ADJECTIVES", "NOUNS"]

ADJECTIVES: Final = tuple(
    """
    amber ample arctic autumn azure balmy basic bold brave breezy brief bright brisk bronze calm candid careful
    carmine cedar central chief civil classic clean clear clever close coastal cobalt cool copper coral cosmic cozy
    crisp crystal curious cyan daily dapper daring deep deft dense dewy direct distant dotted double dusky eager
    early earnest eastern easy elder elegant emerald equal even exact fair fancy fast fern festive fine firm first
    fleet floral fluent focal fond formal fresh frosty full gentle giant gilded glad gleaming global golden good
    grand granite grassy green handy happy hardy hazel hearty helpful hidden honest humble icy ideal indigo inner
    ivory jade jolly jovial keen kind large lasting late lavender leafy level light lilac linen lively local lofty
    loyal lucid lucky lunar magenta main major maple marble mellow merry mighty mild minty misty modern modest
    morning mossy narrow native navy neat nimble noble northern novel oaken olive open orange orderly outer paper
    pastel patient pearly peppy placid plain polar polite prime proper proud quick quiet rapid rare ready regal
    robust rosy round royal ruby rustic saffron sandy scarlet scenic serene sharp shiny silent silken silver simple
    sincere sleek smart smooth snowy social soft solar solid southern spare spry stable stately steady stellar still
    stout sturdy subtle sunny super swift tall teal tender thrifty tidy timely topaz tranquil true trusty upbeat
    upper urban usual valid vast velvet verdant violet vital vivid warm western whole wide wise witty woven young
    zesty
    """.split()
)

NOUNS: Final = tuple(
    """
    acorn alcove almond anchor anvil apple apricot arbor arch archive aspen atlas atrium aurora badger bamboo banner
    basin bay beacon beaver bell birch bison bloom boat bobbin boulder bridge brook buffalo button cabin cactus
    camel candle canoe canvas canyon cape caravan castle cavern cello chalk cherry circle citrus cliff clock cloud
    clover coast comet compass condor copse cottage cove crane creek cricket crown current cypress dahlia dale dawn
    deer delta desert dolphin dove drum dune eagle earth easel elm ember engine falcon feather fern ferry field
    finch fjord flame flute forest forge fountain fox galaxy garden gate geyser ginger glacier glade globe grove
    guitar gull hamlet harbor harp hawk hazelnut heath hedge heron hill hollow horizon ibex inlet iris island ivy
    jasmine jetty juniper kayak kelp kettle kite lagoon lake lantern lark laurel leaf lemon lily lime linden lotus
    lynx magnet mango maple marina meadow melon mesa meteor mill mint mirror moon moose moss mountain nectar needle
    nest nutmeg oak oasis ocean olive orbit orchard orchid osprey otter owl palm panda parrot path peach pearl
    pebble pelican pepper petal piano pine planet plateau plaza plum pond poplar poppy prairie prism puffin quail
    quarry quartz quill rabbit rainbow raven reef ridge river robin rocket rose saddle sail salmon sapling saturn
    sequoia shell shore sierra signal sky sparrow spring spruce star stone stork stream summit swallow swan tapir
    teapot temple thicket thistle thunder tide tiger timber tower trail tulip tundra turtle valley vessel village
    vine violin walnut walrus water wave wheat willow wind window wren yarrow zebra zenith zephyr
    """.split()
)
